"""What tokens are good for at a registry, asked of it by HTTP: matrix.py FOLDER HOST:PORT PART; a line for each check.

`ok NAME`, or `FAILED NAME` and after a tab the reason. FOLDER holds the keys of gitlab.py. PART is access, tags, forged or sizes.
"""

import base64
import hashlib
import hmac
import http.client
import itertools
import json
import sys
import time

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding

import gitlab
from gitlab import SERVICE, entry

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
PROJECT = "group/project"
numbers = itertools.count(time.time_ns())


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Registry:
    def __init__(self, address, keys):
        self.address, self.keys = address, keys

    def ask(self, method, path, token=None, body=None, **headers):
        connection = http.client.HTTPConnection(self.address, timeout=30)
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        response.body = response.read()
        connection.close()
        return response

    def owner(self, repository):
        """A token for everything in one repository."""
        return gitlab.mint(self.keys, [entry(repository, ["pull", "push", "delete"])], "owner")

    def push_blob(self, repository, token, data=None):
        data = data if data is not None else f"blob {next(numbers)}".encode()
        path = f"/v2/{repository}/blobs/uploads/?digest={digest(data)}"
        return self.ask("POST", path, token, data, Content_Type="application/octet-stream"), digest(data)

    def manifest(self, repository):
        """A manifest that nobody has, its blobs pushed by the owner."""
        config = f'{{"n": {next(numbers)}}}'.encode()
        answer, name = self.push_blob(repository, self.owner(repository), config)
        expect(answer, 201, "the owner pushes a blob")
        descriptor = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": name, "size": len(config)}
        return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor, "layers": []}).encode()

    def put(self, repository, reference, token, manifest=None):
        manifest = manifest or self.manifest(repository)
        path = f"/v2/{repository}/manifests/{reference}"
        return self.ask("PUT", path, token, manifest, Content_Type=MANIFEST), digest(manifest)

    def seed(self, repository, tag=None):
        tag = tag or f"seed-{next(numbers)}"
        answer, name = self.put(repository, tag, self.owner(repository))
        expect(answer, 201, "the owner pushes a tag")
        return tag, name

    def points_to(self, repository, tag):
        answer = self.ask("HEAD", f"/v2/{repository}/manifests/{tag}", self.owner(repository), Accept=MANIFEST)
        return answer.getheader("Docker-Content-Digest") if answer.status == 200 else None


class Wrong(Exception):
    pass


def expect(answer, status, what):
    if answer.status != status:
        raise Wrong(f"{what}: {answer.status}, not {status}: {answer.body[:200]!r}")


def allowed(answer, *statuses):
    if answer.status not in statuses:
        raise Wrong(f"refused with {answer.status}: {answer.body[:200]!r}")


def denied(answer):
    """401 and 403, and 404 where the repository is not even seen."""
    if answer.status not in (401, 403, 404):
        raise Wrong(f"not refused: {answer.status}")


def check(name, run, *arguments):
    try:
        run(*arguments)
    except Wrong as wrong:
        print(f"FAILED {name}\t{wrong}", flush=True)
    except OSError as error:
        print(f"FAILED {name}\t{type(error).__name__}: {error}", flush=True)
    else:
        print(f"ok {name}", flush=True)


# Each operation: what it does, which action it needs, and whether it happened.


def pulls(registry, token, may):
    tag, name = registry.seed(PROJECT)
    for path in (f"manifests/{tag}", f"manifests/{name}", "tags/list"):
        answer = registry.ask("GET", f"/v2/{PROJECT}/{path}", token, Accept=MANIFEST)
        allowed(answer, 200) if may else denied(answer)
    data = f"blob {next(numbers)}".encode()
    expect(registry.push_blob(PROJECT, registry.owner(PROJECT), data)[0], 201, "the owner pushes a blob")
    answer = registry.ask("GET", f"/v2/{PROJECT}/blobs/{digest(data)}", token)
    allowed(answer, 200) if may else denied(answer)
    if not may and data in answer.body:
        raise Wrong("the refusal holds the blob")


def uploads(registry, token, may):
    answer, name = registry.push_blob(PROJECT, token)
    allowed(answer, 201) if may else denied(answer)
    there = registry.ask("HEAD", f"/v2/{PROJECT}/blobs/{name}", registry.owner(PROJECT)).status == 200
    if there != may:
        raise Wrong(f"the blob is {'there' if there else 'not there'}")


def tags(registry, token, may):
    tag = f"new-{next(numbers)}"
    answer, name = registry.put(PROJECT, tag, token)
    allowed(answer, 201) if may else denied(answer)
    if registry.points_to(PROJECT, tag) != (name if may else None):
        raise Wrong("the tag does not say so")


def moves(registry, token, may):
    tag, before = registry.seed(PROJECT)
    answer, name = registry.put(PROJECT, tag, token)
    allowed(answer, 201) if may else denied(answer)
    if registry.points_to(PROJECT, tag) != (name if may else before):
        raise Wrong("the tag does not say so")


def deletes_tag(registry, token, may):
    tag, name = registry.seed(PROJECT)
    answer = registry.ask("DELETE", f"/v2/{PROJECT}/manifests/{tag}", token)
    allowed(answer, 202) if may else denied(answer)
    if registry.points_to(PROJECT, tag) != (None if may else name):
        raise Wrong("the tag does not say so")


def deletes_manifest(registry, token, may):
    tag, name = registry.seed(PROJECT)
    answer = registry.ask("DELETE", f"/v2/{PROJECT}/manifests/{name}", token)
    allowed(answer, 202) if may else denied(answer)
    if registry.points_to(PROJECT, tag) != (None if may else name):
        raise Wrong("the tag does not say so")


OPERATIONS = {
    "pulling": (pulls, "pull"),
    "pushing a blob": (uploads, "push"),
    "pushing a tag": (tags, "push"),
    "moving a tag": (moves, "push"),
    "deleting a tag": (deletes_tag, "delete"),
    "deleting a manifest": (deletes_manifest, "delete"),
}


def access(registry):
    def challenges():
        answer = registry.ask("GET", "/v2/")
        expect(answer, 401, "without a token")
        header = answer.getheader("WWW-Authenticate") or ""
        if not header.startswith("Bearer realm=") or f'service="{SERVICE}"' not in header:
            raise Wrong(f"the challenge is {header!r}")
        answer = registry.ask("GET", f"/v2/{PROJECT}/manifests/x")
        if f'scope="repository:{PROJECT}:pull"' not in (answer.getheader("WWW-Authenticate") or ""):
            raise Wrong(f"the challenge names no scope: {answer.getheader('WWW-Authenticate')!r}")
        expect(registry.ask("GET", "/v2/", gitlab.mint(registry.keys, [])), 200, "with a token of no access")

    check("a challenge names the realm, the service and the scope", challenges)

    granted = [[], ["pull"], ["push"], ["delete"], ["pull", "push"], ["pull", "push", "delete"], ["*"], ["fly"]]
    for actions, (name, (run, needed)) in itertools.product(granted, OPERATIONS.items()):
        may = needed in actions or "*" in actions
        token = gitlab.mint(registry.keys, [entry(PROJECT, actions)])
        said = ",".join(actions) or "nothing"
        check(f"{name} with a token for {said} is {'done' if may else 'refused'}", run, registry, token, may)

    everything = ["pull", "push", "delete"]
    others = {
        "a longer name": entry(PROJECT + "2", everything),
        "a part of the name": entry("group", everything),
        "what is below": entry(PROJECT + "/sub", everything),
        "a pattern": entry("group/*", everything),
        "another type": {"type": "import", "name": PROJECT, "actions": everything},
        "the catalog": {"type": "registry", "name": "catalog", "actions": ["*"]},
    }
    for said, other in others.items():
        token = gitlab.mint(registry.keys, [other])
        for name, (run, _) in OPERATIONS.items():
            check(f"{name} with a token for {said} is refused", run, registry, token, False)

    def adds_up():
        token = gitlab.mint(registry.keys, [entry(PROJECT, ["pull"]), entry(PROJECT, ["push"])])
        pulls(registry, token, True)
        uploads(registry, token, True)
        deletes_tag(registry, token, False)

    check("entries of one repository add up", adds_up)

    def mounts():
        data = f"blob {next(numbers)}".encode()
        expect(registry.push_blob("group/other", registry.owner("group/other"), data)[0], 201, "the owner pushes")
        path = f"/v2/{PROJECT}/blobs/uploads/?mount={digest(data)}&from=group/other"
        alone = gitlab.mint(registry.keys, [entry(PROJECT, ["pull", "push"])])
        expect(registry.ask("POST", path, alone), 202, "a mount from what the token does not name")
        there = registry.ask("HEAD", f"/v2/{PROJECT}/blobs/{digest(data)}", registry.owner(PROJECT))
        expect(there, 404, "the blob after it")
        both = [entry(PROJECT, ["pull", "push"]), entry("group/other", ["pull"])]
        expect(registry.ask("POST", path, gitlab.mint(registry.keys, both)), 201, "a mount from what it names")

    check("a6 a mount needs to pull from the other repository, and becomes an upload without", mounts)

    def catalog():
        denied(registry.ask("GET", "/v2/_catalog", registry.owner(PROJECT)))
        listing = {"type": "registry", "name": "catalog", "actions": ["*"]}
        expect(registry.ask("GET", "/v2/_catalog", gitlab.mint(registry.keys, [listing])), 200, "with its scope")

    check("the catalog needs its own scope", catalog)


def tags_of_meta(registry):
    everything = ["pull", "push", "delete"]

    def token(push=(), delete=(), immutable=()):
        deny = {"push": list(push), "delete": list(delete)}
        meta = {"tag_deny_access_patterns": deny, "tag_immutable_patterns": list(immutable)}
        return gitlab.mint(registry.keys, [entry(PROJECT, everything, **meta)])

    def tag(prefix):
        return f"{prefix}{next(numbers)}"

    def push(name, with_token, may):
        before = registry.points_to(PROJECT, name)
        answer, pushed = registry.put(PROJECT, name, with_token)
        allowed(answer, 201) if may else denied(answer)
        if registry.points_to(PROJECT, name) != (pushed if may else before):
            raise Wrong(f"{name} does not say so")

    def delete(reference, with_token, may):
        answer = registry.ask("DELETE", f"/v2/{PROJECT}/manifests/{reference}", with_token)
        allowed(answer, 202) if may else denied(answer)

    def denied_pushes():
        limited = token(push=["^v\\d+$", "^stable"])
        push(tag("v"), limited, False)
        push(registry.seed(PROJECT, tag("stable-"))[0], limited, False)
        push(tag("dev-"), limited, True)
        push(tag("av"), limited, True)
        delete(registry.seed(PROJECT, tag("v"))[0], limited, True)

    def denied_deletes():
        limited = token(delete=["^v\\d+$"])
        name, at = registry.seed(PROJECT, tag("v"))
        delete(name, limited, False)
        delete(at, limited, False)
        delete(registry.seed(PROJECT)[1], limited, False)
        if registry.points_to(PROJECT, name) != at:
            raise Wrong("the tag is gone")
        push(name, limited, True)
        delete(registry.seed(PROJECT)[0], limited, True)

    def immutable():
        limited = token(immutable=["^release-"])
        name = tag("release-")
        push(name, limited, True)
        push(name, limited, False)
        delete(name, limited, False)
        delete(registry.points_to(PROJECT, name), limited, False)
        push(tag("dev-"), limited, True)
        body = registry.ask("GET", f"/v2/{PROJECT}/manifests/{name}", limited, Accept=MANIFEST)
        expect(registry.put(PROJECT, name, limited, body.body)[0], 201, "the same manifest again")

    def anywhere():
        push(tag("x-rc"), token(push=["rc"]), False)
        push(tag("x-rc"), token(push=["^rc"]), True)

    def unusable():
        name = registry.seed(PROJECT)[0]
        for limited in (token(push=list("abcdef")), token(push=["^[a-z"]), token(push=["x" * 101])):
            answer, _ = registry.put(PROJECT, tag("zzz-"), limited)
            if answer.status < 400:
                raise Wrong(f"a tag was pushed: {answer.status}")
            path = f"/v2/{PROJECT}/manifests/{name}"
            expect(registry.ask("GET", path, limited, Accept=MANIFEST), 200, "pulls go on")
        push(tag("zzz-"), token(push=list("abcd"), immutable=["x" * 100]), True)

    check("a7 tags that the token denies pushes of are neither created nor moved, others are", denied_pushes)
    check("a7 tags that the token denies deletes of stay, by tag and by digest", denied_deletes)
    check("a7 immutable tags are created once, and neither moved nor deleted", immutable)
    check("patterns match anywhere unless they are anchored", anywhere)
    check("patterns that cannot be used forbid every write of a tag, and no pull", unusable)


def forged(registry):
    keys = registry.keys
    good = [entry(PROJECT, ["pull", "push", "delete"])]
    now = int(time.time())
    header = {"typ": "JWT", "alg": "RS256", "kid": keys.kid}
    body = gitlab.claims(good)
    tag, _ = registry.seed(PROJECT)

    def part(value):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    def by(key, head, payload):
        message = f"{part(head)}.{part(payload)}"
        return f"{message}.{part(key.sign(message.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def secret(key_bytes, name, hash_name):
        message = f"{part({**header, 'alg': name})}.{part(body)}"
        return f"{message}.{part(hmac.new(key_bytes, message.encode(), hash_name).digest())}"

    def changed(**changes):
        return gitlab.mint(keys, **{"access": good, **changes})

    public = keys.signing.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    der = gitlab.certificate(keys.other, is_authority=True).public_bytes(serialization.Encoding.DER)
    x5c = [base64.b64encode(der).decode()]
    jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(keys.other.public_key()))
    whole = gitlab.mint(keys, good)
    head, payload, signature = whole.split(".")
    root = part({**body, "sub": "root"})
    twice = json.dumps(body).replace('"exp":', f'"exp": {now + 9999}, "exp":', 1).encode()
    deep = b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"
    curve = ec.generate_private_key(ec.SECP256R1())
    tokens = {
        "no token but a word": "hello",
        "two parts": f"{head}.{payload}",
        "five parts": f"{whole}.a.b",
        "algorithm none": f"{part({**header, 'alg': 'none'})}.{payload}.",
        "algorithm none with a signature": f"{part({**header, 'alg': 'none'})}.{payload}.{signature}",
        "algorithm NonE": f"{part({**header, 'alg': 'NonE'})}.{payload}.{signature}",
        "no signature": f"{head}.{payload}.",
        "half a signature": f"{head}.{payload}.{signature[:170]}",
        "a signature of another token": f"{head}.{root}.{signature}",
        "HS256 with the public key as secret": secret(pem, "HS256", "sha256"),
        "HS256 with the bundle as secret": secret(keys.bundle, "HS256", "sha256"),
        "HS512 with the public key as secret": secret(pem, "HS512", "sha512"),
        "ES256 under the id of an RSA key": jwt.encode(body, curve, algorithm="ES256", headers={"kid": keys.kid}),
        "PS256 said, RS256 signed": by(keys.signing, {**header, "alg": "PS256"}, body),
        "an unknown algorithm": by(keys.signing, {**header, "alg": "RS1"}, body),
        "another key under the trusted id": by(keys.other, header, body),
        "another key under its own id": by(keys.other, {**header, "kid": gitlab.libtrust_id(keys.other)}, body),
        "no key id": by(keys.signing, {"typ": "JWT", "alg": "RS256"}, body),
        "a key id that is a number": by(keys.signing, {**header, "kid": 7}, body),
        "an embedded key under the trusted id": by(keys.other, {**header, "jwk": jwk}, body),
        "an embedded key alone": by(keys.other, {"alg": "RS256", "jwk": jwk}, body),
        "a chain of one's own making": by(keys.other, {"alg": "RS256", "x5c": x5c}, body),
        "the trusted certificate behind one's own": by(
            keys.other,
            {"alg": "RS256", "x5c": x5c + [keys.bundle.decode().replace("\n", "").split("-----")[2]]},
            body,
        ),
        "the address of a key set": by(keys.other, {**header, "jku": "https://127.0.0.1:9/jwks"}, body),
        "the address of a certificate": by(keys.other, {**header, "x5u": "file:///etc/passwd"}, body),
        "critical extensions": by(keys.signing, {**header, "crit": ["b64"], "b64": False}, body),
        "another issuer": changed(iss="gitlab-issuer"),
        "no issuer": changed(iss=None),
        "another audience": changed(aud="dependency_proxy"),
        "several other audiences": changed(aud=["a", "b"]),
        "no audience": changed(aud=None),
        "expired": changed(exp=now - 120, iat=now - 600, nbf=now - 600),
        "no end": changed(exp=None),
        "an end that is a text": by(keys.signing, header, {**body, "exp": str(now + 300)}),
        "not yet valid": changed(nbf=now + 120),
        "issued in the future": changed(iat=now + 120),
        "an unknown scope class": gitlab.mint(keys, [{**good[0], "class": "evil"}]),
        "a claim twice": by(keys.signing, header, twice),
        "the algorithm twice": by(keys.signing, json.dumps(header).replace("{", '{"alg": "none", ', 1).encode(), body),
        "nested 5,000 deep": by(keys.signing, header, deep),
        "an access list that is a text": changed(access="*"),
        "claims that are a list": by(keys.signing, header, b"[]"),
    }

    def refused(token):
        path = f"/v2/{PROJECT}/manifests/{tag}"
        expect(registry.ask("GET", path, token, Accept=MANIFEST), 401, "pulling with it")
        expect(registry.ask("GET", "/v2/", token), 401, "the base with it")
        answer, name = registry.push_blob(PROJECT, token)
        expect(answer, 401, "pushing with it")

    check("the token that the forged ones are made of is good", lambda: pulls(registry, whole, True))
    for name, token in tokens.items():
        check(f"a4 refused: {name}", refused, token)

    def tells_nothing():
        answers = set()
        for name in ("another key under the trusted id", "expired", "another audience", "algorithm none"):
            answer = registry.ask("GET", f"/v2/{PROJECT}/manifests/{tag}", tokens[name], Accept=MANIFEST)
            answers.add((answer.status, answer.body, answer.getheader("WWW-Authenticate")))
        if len(answers) != 1:
            raise Wrong(f"the answers differ: {answers}")

    check("a forged token is told no reason", tells_nothing)

    def in_time():
        late = changed(exp=now - 30, iat=now - 600, nbf=now - 600)
        for token in (late, changed(nbf=now + 30, iat=now + 30), changed(aud=["other", SERVICE])):
            pulls(registry, token, True)

    check("clocks may differ by half a minute, and audiences be several", in_time)


def sizes(registry):
    def of(header_bytes):
        entries = [entry(PROJECT, ["pull"])]
        while True:
            token = gitlab.mint(registry.keys, entries)
            if len(f"Authorization: Bearer {token}") > header_bytes:
                return gitlab.mint(registry.keys, entries[:-1])
            entries.append(entry(f"group/project/{len(entries)}", ["pull", "push", "delete"]))

    def fits():
        token = of((32 << 10) - 200)
        if len(token) < 31 << 10:
            raise Wrong(f"the token has {len(token)} bytes")
        pulls(registry, token, True)

    def too_long():
        answer = registry.ask("GET", "/v2/", of(64 << 10))
        if answer.status not in (401, 431):
            raise Wrong(f"it is answered with {answer.status}")
        expect(registry.ask("GET", "/v2/", registry.owner(PROJECT)), 200, "the next request")

    check("a token that fills the headers of a request to 32 KiB is taken", fits)
    check("a1 one of 64 KiB is refused, and the registry serves on", too_long)


def main(folder, address, part):
    registry = Registry(address, gitlab.Keys(folder))
    {"access": access, "tags": tags_of_meta, "forged": forged, "sizes": sizes}[part](registry)


main(*sys.argv[1:])
