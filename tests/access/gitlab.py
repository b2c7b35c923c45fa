"""A token service that mints as GitLab's does, by PyJWT: RS256, `kid` as libtrust names keys, access list and `meta`.

    gitlab.py keys FOLDER            writes signing.key, bundle.crt (a certificate of it), other.key
    gitlab.py serve FOLDER PORTFILE [CERTIFICATE KEY]
                                     answers GET /jwt/auth on loopback, by TLS where it is given a certificate, on a port
                                     that it writes to PORTFILE
"""

import base64
import datetime
import hashlib
import http.server
import json
import os
import pathlib
import ssl
import sys
import time
import urllib.parse
import uuid

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

ISSUER = "omnibus-gitlab-issuer"
SERVICE = "container_registry"
LIFETIME_S = 300

# Who may do what, as GitLab decides it from memberships; a name that is not there has no project.
USERS = {
    "developer": {"password": "dev-password", "projects": {"group/project": ["pull", "push"]}},
    "maintainer": {"password": "main-password", "projects": {"group/project": ["pull", "push", "delete"]}},
    "guest": {"password": "guest-password", "projects": {"group/project": ["pull"]}},
}


class Keys:
    def __init__(self, folder):
        folder = pathlib.Path(folder)
        self.signing = load(folder / "signing.key")
        self.other = load(folder / "other.key")
        self.bundle = (folder / "bundle.crt").read_bytes()
        self.kid = libtrust_id(self.signing)


def load(path):
    return serialization.load_pem_private_key(path.read_bytes(), password=None)


def write_keys(folder):
    folder = pathlib.Path(folder)
    for name in ("signing", "other"):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = folder / f"{name}.key"
        path.touch(mode=0o600)
        path.write_bytes(pem)
        if name == "signing":
            (folder / "bundle.crt").write_bytes(certificate(key).public_bytes(serialization.Encoding.PEM))


def certificate(key, common_name="gitlab-issuer", is_authority=True):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


def libtrust_id(key):
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = base64.b32encode(hashlib.sha256(spki).digest()[:30]).decode().rstrip("=")
    return ":".join(text[at : at + 4] for at in range(0, len(text), 4))


def entry(name, actions, **meta):
    project = {"project_path": name, "project_id": 7, "root_namespace_id": 3}
    return {"type": "repository", "name": name, "actions": list(actions), "meta": {**project, **meta}}


def claims(access, subject="developer"):
    now = int(time.time())
    return {
        "access": access,
        "jti": str(uuid.uuid4()),
        "aud": SERVICE,
        "sub": subject,
        "iss": ISSUER,
        "iat": now,
        "nbf": now - 5,
        "exp": now + LIFETIME_S,
        "auth_type": "personal_access_token",
    }


def mint(keys, access, subject="developer", **changes):
    body = {name: value for name, value in {**claims(access, subject), **changes}.items() if value is not None}
    return jwt.encode(body, keys.signing, algorithm="RS256", headers={"kid": keys.kid})


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    keys = None

    def do_POST(self):
        """Clients that try OAuth2's form first go on with GET."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(404, {})

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        if url.path != "/jwt/auth":
            return self.answer(404, {})
        if query.get("service") != [SERVICE]:
            return self.answer(400, {"errors": [{"code": "UNSUPPORTED", "message": "another service"}]})
        user = self.user()
        if user is None:
            return self.answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "HTTP Basic: Access denied"}]})
        access = []
        for scope in " ".join(query.get("scope", [])).split():
            kind, name, words = scope.split(":")
            allowed = USERS[user]["projects"].get(name, [])
            granted = [word for word in words.split(",") if word in allowed]
            if kind == "repository" and granted:
                access.append(entry(name, granted))
        if query.get("scope") and not access:
            return self.answer(403, {"errors": [{"code": "DENIED", "message": "access forbidden"}]})
        self.answer(200, {"token": mint(self.keys, access, user)})

    def user(self):
        scheme, _, text = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        name, _, password = base64.b64decode(text).decode().partition(":")
        return name if USERS.get(name, {}).get("password") == password else None

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def serve(folder, port_file, certificate=None, key=None):
    Handler.keys = Keys(folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    # Whole or not at all: who waits for the file reads it at once.
    partial = f"{port_file}.part"
    pathlib.Path(partial).write_text(str(server.server_address[1]))
    os.rename(partial, port_file)
    server.serve_forever()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["keys", folder]:
            write_keys(folder)
        case ["serve", folder, port_file, *tls]:
            serve(folder, port_file, *tls)
        case _:
            sys.exit(__doc__)
