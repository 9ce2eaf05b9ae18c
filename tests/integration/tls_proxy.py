"""TLS before a server that speaks none, as a proxy does on a team's machine, under a certificate of a test's own."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Thread

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificate(room: Path) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key beside it (`key.pem`)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    built = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    for extension, critical in ((address, False), (x509.BasicConstraints(ca=True, path_length=None), True)):
        built = built.add_extension(extension, critical)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (room / "key.pem").write_bytes(private)
    (room / "certificate.pem").write_bytes(built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return room / "certificate.pem"


@contextmanager
def tls_before(port: int, shown: Path) -> Iterator[str]:
    """The address at which what listens on `port` is reached over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown, shown.with_name("key.pem"))
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # a client that does not trust us goes
    thread = Thread(target=loop.run_forever)
    thread.start()

    async def serve() -> asyncio.Server:
        return await asyncio.start_server(partial(_pass_on, port), "127.0.0.1", 0, ssl=context)

    try:
        server = asyncio.run_coroutine_threadsafe(serve(), loop).result(10)
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _pass_on(port: int, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
    server, to_server = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(_pass(client, to_server), _pass(server, to_client))


async def _pass(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()
    target.close()
