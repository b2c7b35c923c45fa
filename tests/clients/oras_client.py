"""One verb of the `oras` library per run: oras_client.py http|https VERB TARGET …; prints the digest of what it pushed."""

import os
import sys

import oras.client
import oras.oci

CHUNK_BYTES = 1_000_000
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def main(scheme, verb, target, *rest):
    bundle = os.environ.get("REQUESTS_CA_BUNDLE", True)
    client = oras.client.OrasClient(insecure=scheme == "http", tls_verify=bundle)
    if verb == "push":
        print_digest(client.push(target, files=list(rest), quiet=True))
    elif verb == "push-chunked":
        print_digest(client.push(target, files=list(rest), do_chunked=True, chunk_size=CHUNK_BYTES, quiet=True))
    elif verb == "attach":
        file, digest, size = rest
        subject = oras.oci.Subject(MANIFEST, digest, int(size))
        print_digest(client.push(target, files=[file], subject=subject, quiet=True))
    elif verb == "pull":
        client.pull(target, outdir=rest[0])
    elif verb == "delete":
        if not client.delete_tag(target, rest[0]):
            sys.exit(f"{target} has no tag {rest[0]}")
    else:
        sys.exit(f"oras_client.py has no verb {verb}")


def print_digest(response):
    print(response.headers["Docker-Content-Digest"])


main(*sys.argv[1:])
