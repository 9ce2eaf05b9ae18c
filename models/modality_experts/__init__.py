"""One transformer for images, text and both, with experts per modality where the config says so: importing it registers the Auto classes.

    import models.modality_experts
    model = transformers.AutoModel.from_pretrained(directory)

The model of VLMo (Bao et al. 2021, arXiv 2111.02358) on BEiT's blocks (Bao et al. 2021, arXiv 2106.08254), as arXiv 2304.14933 merges it.
"""
