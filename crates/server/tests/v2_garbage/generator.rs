//! One request of garbage for each seed and index, always the same.

use std::fmt;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// What exists, so that some garbage gets past the door.
pub(crate) struct Seeds {
    pub(crate) manifest: String,
    pub(crate) blob: String,
    pub(crate) upload: String,
}

pub(crate) struct Garbage {
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_head: bool,
    /// The request line or a header may break HTTP itself.
    pub(crate) may_not_be_http: bool,
}

impl fmt::Display for Garbage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.bytes[..self.bytes.len().min(2000)];
        write!(f, "{}", shown.escape_ascii())
    }
}

const METHODS: [&str; 8] = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "BREW"];
const PARAMETERS: [&str; 14] = [
    "n",
    "last",
    "digest",
    "mount",
    "from",
    "tag",
    "artifactType",
    "digest-algorithm",
    "ns",
    "_state",
    "",
    "n[]",
    "N",
    "%6e",
];
const HEADERS: [&str; 18] = [
    "Range",
    "Content-Range",
    "If-None-Match",
    "If-Range",
    "Accept",
    "Content-Type",
    "Authorization",
    "X-Request-Id",
    "Expect",
    "Accept-Encoding",
    "Content-Encoding",
    "X-Forwarded-Host",
    "Cookie",
    "Docker-Content-Digest",
    "Origin",
    "Upgrade",
    "Te",
    "X-Garbage",
];
const WORDS: [&str; 44] = [
    "..",
    ".",
    "/",
    "//",
    "%2e%2e",
    "%2F",
    "%252F",
    "%00",
    "%",
    "%zz",
    "%ff",
    "%c0%ae",
    "A",
    "ä",
    "latest",
    "x",
    "library/x",
    "blobs",
    "manifests",
    "uploads",
    "tags",
    "list",
    "referrers",
    "_catalog",
    "sha256:",
    "sha512:",
    "md5:00",
    "sha256",
    "-1",
    "0",
    "1",
    "99999999999999999999999",
    "9223372036854775807",
    "1e9",
    "bytes=0-0",
    "bytes=5-1",
    "bytes=-0",
    "0-9",
    "application/vnd.oci.image.manifest.v1+json",
    "application/json",
    "Bearer a.b.c",
    "100-continue",
    "'\"<script>",
    "${jndi:x}",
];

impl Garbage {
    pub(crate) fn generate(seed: u64, index: u64, seeds: &Seeds) -> Self {
        Generator { random: StdRng::seed_from_u64(seed ^ index.wrapping_mul(0x9E37_79B9_7F4A_7C15)), seeds }
            .request()
    }
}

struct Generator<'a> {
    random: StdRng,
    seeds: &'a Seeds,
}

impl Generator<'_> {
    fn one_in(&mut self, n: u32) -> bool {
        self.random.random_ratio(1, n)
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices.choose(&mut self.random).unwrap()
    }

    fn request(mut self) -> Garbage {
        let method = self.method();
        let mut may_not_be_http = false;
        let mut head = format!("{method} {}", self.path());
        if self.one_in(2) {
            head.push('?');
            head.push_str(&self.query());
        }
        // Servers may refuse these before anyone has read the path (RFC 3986, section 2).
        may_not_be_http |= !head
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b" -._~!$&'()*+,;=:@/%?[]".contains(&byte));
        head.push_str(" HTTP/1.1\r\nHost: garbage\r\n");
        let mut bytes = head.into_bytes();
        for _ in 0..self.random.random_range(0..6) {
            let name = self.of(&HEADERS);
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend(self.header_value());
            bytes.extend_from_slice(b"\r\n");
        }
        if self.one_in(500) {
            bytes.extend_from_slice(
                format!("X-Long: {}\r\n", "l".repeat(self.random.random_range(30_000..70_000))).as_bytes(),
            );
            may_not_be_http = true;
        }
        if self.one_in(50) {
            // A line that no grammar of HTTP admits.
            let line: Vec<u8> =
                (0..20).map(|_| self.random.random_range(0..=255)).filter(|b| *b != b'\n').collect();
            bytes.extend(line);
            bytes.extend_from_slice(b"\r\n");
            may_not_be_http = true;
        }
        let body = self.body(method);
        if self.one_in(4) && !body.is_empty() {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(1000) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            bytes.extend(body);
        }
        Garbage { bytes, is_head: method == "HEAD", may_not_be_http }
    }

    /// What exists should not be gone after the first few requests.
    fn method(&mut self) -> &'static str {
        let method = METHODS.choose(&mut self.random).unwrap();
        if *method == "DELETE" && !self.one_in(50) { "GET" } else { method }
    }

    fn path(&mut self) -> String {
        match self.random.random_range(0..12) {
            0 => format!("/v2/{}", self.word()),
            1 => format!("/v2/{}/{}/{}", self.word(), self.word(), self.word()),
            2 => "/v2/_catalog".to_owned(),
            3 => format!("/v2/{}/tags/list", self.name()),
            4 | 5 => format!("/v2/{}/manifests/{}", self.name(), self.reference()),
            6 => format!("/v2/{}/blobs/{}", self.name(), self.reference()),
            7 | 8 => format!("/v2/{}/blobs/uploads/", self.name()),
            9 | 10 => format!("/v2/{}/blobs/uploads/{}", self.name(), self.upload()),
            _ => format!("/v2/{}/referrers/{}", self.name(), self.reference()),
        }
    }

    fn name(&mut self) -> String {
        match self.random.random_range(0..8) {
            0 => self.word(),
            1 => format!("g/{}", self.random.random_range(0..50)),
            _ => "x".to_owned(),
        }
    }

    fn reference(&mut self) -> String {
        match self.random.random_range(0..12) {
            0..=3 => self.seeds.manifest.clone(),
            4..=6 => self.seeds.blob.clone(),
            7 => format!("sha256:{:064x}", self.random.random::<u64>()),
            8 | 9 => "latest".to_owned(),
            _ => self.word(),
        }
    }

    fn upload(&mut self) -> String {
        match self.random.random_range(0..8) {
            0 => self.word(),
            1 => "6b3c9a93-af5d-473f-a4ff-9710022185cd".to_owned(),
            _ => self.seeds.upload.clone(),
        }
    }

    /// Visible ASCII without what would end the request line.
    fn word(&mut self) -> String {
        match self.random.random_range(0..5) {
            0 => {
                let length = self.random.random_range(0..40);
                (0..length)
                    .map(|_| char::from(self.random.random_range(0x21..0x7f_u8)))
                    .filter(|c| !"#?".contains(*c))
                    .collect()
            }
            1 => (0..self.random.random_range(1..20))
                .map(|_| format!("%{:02X}", self.random.random::<u8>()))
                .collect(),
            2 if self.one_in(20) => "a".repeat(self.random.random_range(200..12_000)),
            _ => (0..self.random.random_range(1..3))
                .map(|_| self.of(&WORDS).replace(['<', '>', '"', ' ', '{', '}'], "%20"))
                .collect(),
        }
    }

    fn query(&mut self) -> String {
        let mut query = String::new();
        for _ in 0..self.random.random_range(1..5) {
            let value = match self.random.random_range(0..4) {
                0 => self.reference(),
                1 => self.name(),
                _ => self.word(),
            };
            query.push_str(&format!("{}={value}&", self.of(&PARAMETERS)));
        }
        query.replace('#', "%23")
    }

    fn header_value(&mut self) -> Vec<u8> {
        match self.random.random_range(0..5) {
            0 => (0..self.random.random_range(0..60)).map(|_| self.random.random_range(0x20..0x7f)).collect(),
            1 => {
                (0..self.random.random_range(0..60)).map(|_| self.random.random_range(0x80..=0xff)).collect()
            }
            2 => self.reference().into_bytes(),
            _ => (0..self.random.random_range(1..4))
                .map(|_| self.of(&WORDS))
                .collect::<Vec<_>>()
                .join(",")
                .into_bytes(),
        }
    }

    fn body(&mut self, method: &str) -> Vec<u8> {
        if matches!(method, "GET" | "HEAD" | "DELETE") && !self.one_in(10) {
            return Vec::new();
        }
        match self.random.random_range(0..6) {
            0 => Vec::new(),
            1 => (0..self.random.random_range(1..200)).map(|_| self.random.random()).collect(),
            2 if self.one_in(50) => vec![b'['; self.random.random_range(1000..400_000)],
            2 => self.json(0).into_bytes(),
            _ => self.manifest(),
        }
    }

    fn json(&mut self, depth: u32) -> String {
        let inner = |this: &mut Self| if depth > 6 { "0".to_owned() } else { this.json(depth + 1) };
        match self.random.random_range(0..7) {
            0 => format!("[{},{}]", inner(self), inner(self)),
            1 => format!(
                "{{\"{}\":{}}}",
                self.of(&["config", "layers", "manifests", "subject", "mediaType", "x"]),
                inner(self)
            ),
            2 => self.random.random::<i64>().to_string(),
            3 => "1e999".to_owned(),
            4 => "null".to_owned(),
            _ => format!("{:?}", self.word()),
        }
    }

    /// A manifest that is nearly good, and sometimes is.
    fn manifest(&mut self) -> Vec<u8> {
        let blob = self.seeds.blob.clone();
        let mut fields = vec![
            "\"schemaVersion\":2".to_owned(),
            format!("\"config\":{{\"mediaType\":\"a/b\",\"digest\":\"{blob}\",\"size\":4}}"),
            "\"layers\":[]".to_owned(),
        ];
        for _ in 0..self.random.random_range(0..3) {
            let name = self.of(&[
                "config",
                "layers",
                "manifests",
                "subject",
                "artifactType",
                "annotations",
                "mediaType",
                "fsLayers",
            ]);
            let value = match self.random.random_range(0..4) {
                0 => format!(
                    "{{\"mediaType\":\"a/b\",\"digest\":{:?},\"size\":{}}}",
                    self.reference(),
                    self.random.random::<i32>()
                ),
                1 => format!("[{{\"digest\":{:?}}}]", self.reference()),
                2 => format!("{:?}", self.of(&WORDS)),
                _ => self.json(0),
            };
            fields.push(format!("{name:?}:{value}"));
        }
        let mut bytes = format!("{{{}}}", fields.join(",")).into_bytes();
        if self.one_in(4) {
            let at = self.random.random_range(0..bytes.len());
            bytes[at] = self.random.random();
        }
        bytes
    }
}
