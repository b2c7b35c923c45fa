//! Private memory of both sites while many clients load them at once: it is bounded by the process, not by the client.
//! Guards the bound of 150 MiB on a primary that is replicating and on its secondary; every byte pulled is compared.
#![expect(clippy::print_stdout, reason = "figures of a run")]

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rand::{RngCore as _, SeedableRng as _, rngs::StdRng};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinSet, time::sleep};
use twinport_oci::{Algorithm, Digest, Hasher};
use twinport_testkit::{Image, MANIFEST, MemoryWatch, Pair, SiteDatabase, number, push_blob};

const BINARY: &str = env!("CARGO_BIN_EXE_twinport");
const BOUND_MIB: f64 = 150.0;
const REPOSITORY: &str = "memory/large";
/// Bytes that a client hands to its connection at a time.
const PIECE: usize = 1 << 20;
/// How long memory is watched while nothing but stalled clients is there.
const WATCHED: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn many_large_uploads_downloads_and_stalled_clients_leave_private_memory_bounded() -> anyhow::Result<()>
{
    let test = Test::start()?;
    test.idle().await;
    let first = test.layers(0)?;
    test.upload(&first, &[Form::Put]).await?;
    test.arrived(first.len()).await?;
    test.report("uploads by PUT, replicated")?;
    test.upload(&first, &[Form::Patch]).await?;
    test.report("uploads by streamed PATCH")?;
    test.download_everywhere(&first).await?;
    test.report("downloads")?;
    let stalled = test.stall(&first[0], clients()).await?;
    sleep(WATCHED).await;
    test.report("stalled clients")?;
    drop(stalled);

    let _stalled = test.stall(&first[0], clients().div_ceil(3)).await?;
    let second = test.layers(first.len() as u64)?;
    let forms = [Form::Put, Form::Patch];
    let (uploads, downloads) = tokio::join!(test.upload(&second, &forms), test.download_everywhere(&first));
    uploads.and(downloads)?;
    test.arrived(first.len() + second.len()).await?;
    test.report("all at once, replicated")?;
    test.verdict()
}

/// How an upload's bytes are sent.
#[derive(Clone, Copy)]
enum Form {
    /// One request of a known length.
    Put,
    /// A body of unknown length, then PUT without one.
    Patch,
}

/// One layer: a piece of its own, then the common piece again and again.
#[derive(Clone)]
struct Layer {
    number: u64,
    own: Bytes,
    common: Bytes,
    pieces: usize,
    digest: Digest,
}

impl Layer {
    fn new(number: u64, common: &Bytes, pieces: usize) -> Self {
        let mut own = vec![0; PIECE];
        StdRng::seed_from_u64(number).fill_bytes(&mut own);
        let mut layer =
            Self { number, own: own.into(), common: common.clone(), pieces, digest: Digest::sha256(b"") };
        let mut hasher = Hasher::new(Algorithm::Sha256);
        layer.pieces().for_each(|piece| hasher.update(&piece));
        layer.digest = hasher.finish();
        layer
    }

    fn pieces(&self) -> impl Iterator<Item = Bytes> + Send + use<> {
        let Self { own, common, pieces, .. } = self.clone();
        (0..pieces).map(move |index| if index == 0 { own.clone() } else { common.clone() })
    }

    fn bytes(&self) -> usize {
        self.pieces * PIECE
    }

    /// Compares what arrives, wherever the connection cut it.
    async fn compare(&self, answer: reqwest::Response) -> anyhow::Result<()> {
        let mut arriving = answer.bytes_stream();
        let (mut expected, mut at) = (Bytes::new(), 0);
        let mut pieces = self.pieces();
        while let Some(mut part) = arriving.try_next().await? {
            while !part.is_empty() {
                if expected.is_empty() {
                    expected = pieces.next().context("no more bytes than the layer has")?;
                }
                let length = part.len().min(expected.len());
                ensure!(part.split_to(length) == expected.split_to(length), "altered at or after byte {at}");
                at += length;
            }
        }
        ensure!(at == self.bytes(), "{at} bytes arrived of {}", self.bytes());
        Ok(())
    }
}

struct Test {
    pair: Pair,
    http: reqwest::Client,
    watched: [MemoryWatch; 2],
    peaks: parking_lot::Mutex<Vec<(String, f64)>>,
}

impl Test {
    fn start() -> anyhow::Result<Self> {
        let pair = Pair::joined(BINARY, SiteDatabase::Embedded, SiteDatabase::Embedded)?;
        let watch = |pid: Option<u32>| anyhow::Ok(MemoryWatch::of(pid.context("the site runs")?));
        let watched = [watch(pair.primary.pid())?, watch(pair.secondary.pid())?];
        Ok(Self { pair, http: reqwest::Client::new(), watched, peaks: parking_lot::Mutex::default() })
    }

    async fn idle(&self) {
        sleep(WATCHED).await;
        for (site, watch) in ["primary", "secondary"].iter().zip(&self.watched) {
            println!("figure: memory idle: {site} {:.1} MiB", watch.take_peak().0);
        }
    }

    /// As many as there are clients, numbered from `from`.
    fn layers(&self, from: u64) -> anyhow::Result<Vec<Layer>> {
        let pieces = usize::try_from(number("TWINPORT_TEST_LAYER_MIB", 8))?;
        let mut common = vec![0; PIECE];
        StdRng::seed_from_u64(u64::MAX).fill_bytes(&mut common);
        let common = Bytes::from(common);
        Ok((from..from + clients()).map(|number| Layer::new(number, &common, pieces)).collect())
    }

    /// All at once, each by the next of `forms`, and then an image of it.
    async fn upload(&self, layers: &[Layer], forms: &[Form]) -> anyhow::Result<()> {
        let url = self.pair.primary.url();
        let mut uploads = JoinSet::new();
        for (layer, form) in layers.iter().cloned().zip(forms.iter().copied().cycle()) {
            let (http, url) = (self.http.clone(), url.clone());
            uploads.spawn(async move { upload(&http, &url, &layer, form).await });
        }
        all(uploads).await
    }

    /// Each layer from each site, all at once.
    async fn download_everywhere(&self, layers: &[Layer]) -> anyhow::Result<()> {
        let mut downloads = JoinSet::new();
        for site in [self.pair.primary.url(), self.pair.secondary.url()] {
            for layer in layers.iter().cloned() {
                let (http, address) = (self.http.clone(), blob_address(&site, &layer.digest));
                downloads.spawn(async move {
                    let answer = http.get(&address).send().await?;
                    ensure!(answer.status() == 200, "{address}: {}", answer.status());
                    layer.compare(answer).await.context(address)
                });
            }
        }
        all(downloads).await
    }

    async fn arrived(&self, images: usize) -> anyhow::Result<()> {
        let every = "SELECT count(*) FROM tracked_items WHERE kind = 'tag' AND verification = 'succeeded'";
        self.pair.secondary.wait_for_count(every, images).await
    }

    /// So many of each of the three kinds, at each site; they stay until they are dropped.
    async fn stall(&self, layer: &Layer, each: u64) -> anyhow::Result<Vec<TcpStream>> {
        let mut stalled = Vec::new();
        let length = layer.bytes();
        let path = format!("/v2/{REPOSITORY}/blobs");
        for site in [self.pair.primary.address(), self.pair.secondary.address()] {
            for _ in 0..each {
                let request = format!("GET {path}/{} HTTP/1.1\r\nHost: a\r\nX-Slow: ", layer.digest);
                stalled.push(connected(site, request.as_bytes()).await?);
                let request = format!("GET {path}/{} HTTP/1.1\r\nHost: a\r\n\r\n", layer.digest);
                stalled.push(connected(site, request.as_bytes()).await?);
                stalled.push(self.stalled_in_a_body(site, length, layer).await?);
            }
        }
        Ok(stalled)
    }

    /// Half of the body and no more. A secondary refuses it, and has it all the same.
    async fn stalled_in_a_body(
        &self,
        site: SocketAddr,
        length: usize,
        layer: &Layer,
    ) -> anyhow::Result<TcpStream> {
        let begun = self.http.post(format!("http://{site}/v2/{REPOSITORY}/blobs/uploads/")).send().await?;
        let session = match begun.headers().get("Location") {
            Some(location) => location.to_str()?.trim_start_matches(&format!("http://{site}")).to_owned(),
            None => format!("/v2/{REPOSITORY}/blobs/uploads/"),
        };
        let method = if begun.status() == 202 { "PATCH" } else { "POST" };
        let head = format!(
            "{method} {session} HTTP/1.1\r\nHost: a\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
        );
        let mut stream = connected(site, head.as_bytes()).await?;
        let mut sent = 0;
        for piece in layer.pieces().take(layer.pieces.div_ceil(2)) {
            // What a refusing site does not take stays unsent.
            match tokio::time::timeout(Duration::from_secs(5), stream.write_all(&piece)).await {
                Ok(Ok(())) => sent += piece.len(),
                _ => break,
            }
        }
        ensure!(begun.status() != 202 || sent > 0, "the primary took nothing of a body");
        Ok(stream)
    }

    /// The peaks since the last report.
    fn report(&self, phase: &str) -> anyhow::Result<()> {
        for (site, watch) in ["primary", "secondary"].iter().zip(&self.watched) {
            let (peak, looks) = watch.take_peak();
            ensure!(looks > 0, "{phase}: the {site} was not looked at");
            println!("figure: memory with {} {phase}: {site} {peak:.1} MiB ({looks} looks)", clients());
            self.peaks.lock().push((format!("{site}, {phase}"), peak));
        }
        Ok(())
    }

    fn verdict(&self) -> anyhow::Result<()> {
        let peaks = self.peaks.lock();
        let over: Vec<String> = peaks
            .iter()
            .filter(|(_, peak)| *peak >= BOUND_MIB)
            .map(|(when, peak)| format!("{when}: {peak:.1} MiB"))
            .collect();
        ensure!(over.is_empty(), "over {BOUND_MIB} MiB of private memory: {}", over.join("; "));
        Ok(())
    }
}

fn clients() -> u64 {
    number("TWINPORT_TEST_CLIENTS", 16)
}

fn blob_address(url: &str, digest: &Digest) -> String {
    format!("{url}/v2/{REPOSITORY}/blobs/{digest}")
}

async fn all(mut tasks: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}

async fn connected(site: SocketAddr, first: &[u8]) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(site).await?;
    stream.write_all(first).await?;
    Ok(stream)
}

async fn upload(http: &reqwest::Client, url: &str, layer: &Layer, form: Form) -> anyhow::Result<()> {
    let begun = http.post(format!("{url}/v2/{REPOSITORY}/blobs/uploads/")).send().await?;
    ensure!(begun.status() == 202, "{}: {}", begun.url(), begun.status());
    let location = begun.headers().get("Location").context("a Location header")?.to_str()?;
    let session = if location.starts_with('/') { format!("{url}{location}") } else { location.to_owned() };
    let separator = if session.contains('?') { '&' } else { '?' };
    let last = http.put(format!("{session}{separator}digest={}", layer.digest));
    let body = reqwest::Body::wrap_stream(stream::iter(layer.pieces()).map(std::io::Result::Ok));
    let last = match form {
        Form::Put => last.header("Content-Length", layer.bytes()).body(body),
        Form::Patch => {
            let answer = http.patch(&session).body(body).send().await?;
            ensure!(answer.status() == 202, "PATCH {session}: {}: {}", answer.status(), answer.text().await?);
            last
        }
    };
    let answer = last.header("Content-Type", "application/octet-stream").send().await?;
    ensure!(answer.status() == 201, "PUT {session}: {}: {}", answer.status(), answer.text().await?);
    push_image_of(http, url, layer).await
}

/// A tag for the layer, so that its arrival at the other site can be waited for.
async fn push_image_of(http: &reqwest::Client, url: &str, layer: &Layer) -> anyhow::Result<()> {
    let config = Image::random(layer.number, 0, 0).blobs.remove(0);
    let tag = format!("v{}", layer.number);
    push_blob(http, url, REPOSITORY, &config).await?;
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::sha256(&config).to_string(), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.digest.to_string(), "size": layer.bytes()}],
    });
    let address = format!("{url}/v2/{REPOSITORY}/manifests/{tag}");
    let answer =
        http.put(&address).header("Content-Type", MANIFEST).body(manifest.to_string()).send().await?;
    ensure!(answer.status() == 201, "{address}: {}: {}", answer.status(), answer.text().await?);
    Ok(())
}
