"""From records to batches: what stands between the sets of a stage and its objectives.

    examples = pair_examples(learning.sets)                            # every caption of every image is one; lazy, stable order
    collate = PairCollator(examples, processor, learning.modality, seed, patch_size=config.patch_size, choices=config.answers)
    order = ShowingOrder(len(examples), spec.batch_size, batches, seed)
    loader = DataLoader(range(order.examples), batch_size=micro, sampler=order, collate_fn=collate)

An order of showings gives `epoch * len(examples) + index`, and the collator takes that number apart. So each epoch has masks and crops of
its own, and nothing has to be told, counted or restored on resume: a showing is drawn alike whatever was drawn before it, ahead of it or
beside it. A plain index is a showing of epoch 0.
"""
