// regbench loads any OCI registry the same way, so that several can be compared in one run on one machine.
//
//	regbench -url http://127.0.0.1:5000 [-pid SERVER_PID] [-user u:p] [-only push-small,pull-big,...] [-json]
//
// Every digest and byte is made before the clock starts. With -pid the server's own CPU seconds and peak
// memory are printed too: on a shared machine those are steadier than wall time. The status is 1 when any operation
// failed, so that a bench can never quote a rate of errors.
package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var (
	base    = flag.String("url", "http://127.0.0.1:5000", "registry")
	pid     = flag.Int("pid", 0, "server process, for CPU and memory")
	user    = flag.String("user", "", "user:password for basic auth")
	only    = flag.String("only", "push-small,pull-small,push-big,pull-big,tags", "scenarios")
	images  = flag.Int("images", 2000, "small images pushed and pulled")
	clients = flag.Int("c", 16, "concurrent clients of the small scenarios")
	bigMiB  = flag.Int("big", 256, "size of a big blob, MiB")
	bigN    = flag.Int("bign", 8, "big blobs moved")
	bigC    = flag.Int("bigc", 4, "concurrent clients of the big scenarios")
	tags    = flag.Int("tags", 10000, "tags of the tag-list scenario")
	asJSON  = flag.Bool("json", false, "one JSON object a line")
	prefix  = flag.String("prefix", "bench", "repository prefix")
)

const mt = "application/vnd.oci.image.manifest.v1+json"

var hc = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true, ReadBufferSize: 256 << 10, WriteBufferSize: 256 << 10}}

func dig(b []byte) string { h := sha256.Sum256(b); return "sha256:" + hex.EncodeToString(h[:]) }

func do(method, u string, body io.Reader, n int64, ct string, want ...int) (*http.Response, error) {
	r, err := http.NewRequest(method, u, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.ContentLength = n
	}
	if ct != "" {
		r.Header.Set("Content-Type", ct)
	}
	r.Header.Set("Accept", mt)
	if *user != "" {
		p := strings.SplitN(*user, ":", 2)
		r.SetBasicAuth(p[0], p[1])
	}
	resp, err := hc.Do(r)
	if err != nil {
		return nil, err
	}
	for _, w := range want {
		if resp.StatusCode == w {
			return resp, nil
		}
	}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
	resp.Body.Close()
	return nil, fmt.Errorf("%s %s: %d %s", method, u, resp.StatusCode, b)
}

func drain(r *http.Response) int64 {
	n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r.Body, make([]byte, 256<<10))
	r.Body.Close()
	return n
}

func pushBlob(repo string, b []byte, d string) error {
	r, err := do("POST", *base+"/v2/"+repo+"/blobs/uploads/", nil, 0, "", 202)
	if err != nil {
		return err
	}
	drain(r)
	loc, err := url.Parse(r.Header.Get("Location"))
	if err != nil {
		return err
	}
	bu, _ := url.Parse(*base)
	loc = bu.ResolveReference(loc)
	q := loc.Query()
	q.Set("digest", d)
	loc.RawQuery = q.Encode()
	r, err = do("PUT", loc.String(), bytes.NewReader(b), int64(len(b)), "application/octet-stream", 201)
	if err != nil {
		return err
	}
	drain(r)
	return nil
}

type image struct {
	repo, tag              string
	cfg, layer, man        []byte
	cfgD, layerD, manifest string
}

func mkImage(i int, layerSize int) image {
	im := image{repo: fmt.Sprintf("%s/small-%d", *prefix, i%8), tag: fmt.Sprintf("t%d", i)}
	im.layer = make([]byte, layerSize)
	rand.Read(im.layer)
	im.layerD = dig(im.layer)
	im.cfg = []byte(fmt.Sprintf(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["%s"]}}`, im.layerD))
	im.cfgD = dig(im.cfg)
	im.man = manifest(im.cfgD, len(im.cfg), im.layerD, len(im.layer))
	im.manifest = dig(im.man)
	return im
}

func manifest(c string, cn int, l string, ln int) []byte {
	return []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"%s","size":%d}]}`, mt, c, cn, l, ln))
}

func cpu() float64 {
	if *pid == 0 {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", *pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:]))
	var u, s float64
	fmt.Sscan(f[11], &u)
	fmt.Sscan(f[12], &s)
	return (u + s) / 100
}

func hwm() (mib float64) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", *pid))
	for _, l := range strings.Split(string(b), "\n") {
		if strings.HasPrefix(l, "VmHWM:") {
			fmt.Sscan(strings.TrimPrefix(l, "VmHWM:"), &mib)
			mib /= 1024
		}
	}
	return
}

// sampler watches the server's private memory (RssAnon + RssShmem): mapped blob files are the page cache's, not its own.
var peakAnon int64

func sampler() {
	for *pid != 0 {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", *pid))
		if err != nil {
			return
		}
		var sum int64
		for _, l := range strings.Split(string(b), "\n") {
			if strings.HasPrefix(l, "RssAnon:") || strings.HasPrefix(l, "RssShmem:") {
				var k int64
				fmt.Sscan(l[strings.IndexByte(l, ':')+1:], &k)
				sum += k
			}
		}
		if sum > atomic.LoadInt64(&peakAnon) {
			atomic.StoreInt64(&peakAnon, sum)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// anyFailed decides the exit status; written between scenarios only.
var anyFailed bool

func run(name string, n, c int, bytesEach float64, f func(i int) error) {
	lat := make([]float64, n)
	var next, fails int64
	var first atomic.Value
	var wg sync.WaitGroup
	c0, t0 := cpu(), time.Now()
	for w := 0; w < c; w++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				i := int(atomic.AddInt64(&next, 1)) - 1
				if i >= n {
					return
				}
				s := time.Now()
				if err := f(i); err != nil {
					atomic.AddInt64(&fails, 1)
					first.CompareAndSwap(nil, err.Error())
				}
				lat[i] = time.Since(s).Seconds() * 1000
			}
		}()
	}
	wg.Wait()
	el, cs := time.Since(t0).Seconds(), cpu()-c0
	sort.Float64s(lat)
	at := func(p float64) float64 { return lat[int(float64(n-1)*p)] }
	if fails > 0 {
		anyFailed = true
	}
	o := map[string]any{"scenario": name, "n": n, "c": c, "failed": fails, "per_s": float64(n) / el, "mib_s": bytesEach * float64(n) / el / (1 << 20),
		"p50_ms": at(.5), "p99_ms": at(.99), "server_cpu_s": cs, "server_cpu_ms_each": cs * 1000 / float64(n), "server_peak_mib": hwm(), "server_private_mib": float64(atomic.LoadInt64(&peakAnon)) / 1024}
	if e := first.Load(); e != nil {
		o["error"] = e
	}
	if *asJSON {
		json.NewEncoder(os.Stdout).Encode(o)
		return
	}
	fmt.Printf("%-12s n=%-6d c=%-3d %9.1f/s %9.1f MiB/s  p50 %8.2f ms  p99 %8.2f ms  cpu %7.3f ms each  peak %6.0f private %6.0f MiB  failed %d %v\n",
		name, n, c, o["per_s"], o["mib_s"], at(.5), at(.99), o["server_cpu_ms_each"], hwm(), float64(atomic.LoadInt64(&peakAnon))/1024, fails, o["error"])
}

func main() {
	flag.Parse()
	go sampler()
	want := map[string]bool{}
	for _, s := range strings.Split(*only, ",") {
		want[s] = true
	}
	if want["push-small"] || want["pull-small"] {
		ims := make([]image, *images)
		for i := range ims {
			ims[i] = mkImage(i, 10<<10)
		}
		run("push-small", *images, *clients, 10<<10, func(i int) error {
			im := ims[i]
			if err := pushBlob(im.repo, im.layer, im.layerD); err != nil {
				return err
			}
			if err := pushBlob(im.repo, im.cfg, im.cfgD); err != nil {
				return err
			}
			r, err := do("PUT", *base+"/v2/"+im.repo+"/manifests/"+im.tag, bytes.NewReader(im.man), int64(len(im.man)), mt, 201)
			if err == nil {
				drain(r)
			}
			return err
		})
		if want["pull-small"] {
			run("pull-small", *images, *clients, 10<<10, func(i int) error {
				im := ims[i]
				for _, p := range []string{"/manifests/" + im.tag, "/blobs/" + im.cfgD, "/blobs/" + im.layerD} {
					r, err := do("GET", *base+"/v2/"+im.repo+p, nil, 0, "", 200)
					if err != nil {
						return err
					}
					b, err := io.ReadAll(r.Body)
					r.Body.Close()
					if err != nil {
						return err
					}
					if d := dig(b); d != im.manifest && d != im.cfgD && d != im.layerD {
						return fmt.Errorf("wrong bytes at %s%s", im.repo, p)
					}
				}
				return nil
			})
			hot := ims[0]
			run("manifest", *images*10, *clients, 0, func(int) error {
				r, err := do("GET", *base+"/v2/"+hot.repo+"/manifests/"+hot.tag, nil, 0, "", 200)
				if err == nil && drain(r) != int64(len(hot.man)) {
					err = fmt.Errorf("short manifest")
				}
				return err
			})
		}
	}
	if want["push-big"] || want["pull-big"] {
		n := *bigMiB << 20
		buf := make([]byte, n+*bigN*64)
		rand.Read(buf)
		ds := make([]string, *bigN)
		for i := range ds {
			ds[i] = dig(buf[i*64 : i*64+n])
		}
		repo := *prefix + "/big"
		run("push-big", *bigN, *bigC, float64(n), func(i int) error { return pushBlob(repo, buf[i*64:i*64+n], ds[i]) })
		if want["pull-big"] {
			for _, c := range []int{1, *bigC} {
				run(fmt.Sprintf("pull-big-%d", c), *bigN*2, c, float64(n), func(i int) error {
					r, err := do("GET", *base+"/v2/"+repo+"/blobs/"+ds[i%*bigN], nil, 0, "", 200)
					if err != nil {
						return err
					}
					if g := drain(r); g != int64(n) {
						return fmt.Errorf("short: %d", g)
					}
					return nil
				})
			}
		}
	}
	if want["tags"] {
		im := mkImage(0, 1024)
		im.repo = *prefix + "/many"
		for _, b := range [][2]any{{im.layer, im.layerD}, {im.cfg, im.cfgD}} {
			if err := pushBlob(im.repo, b[0].([]byte), b[1].(string)); err != nil {
				fmt.Fprintln(os.Stderr, "tags:", err)
				os.Exit(1)
			}
		}
		run("tag-put", *tags, *clients, 0, func(i int) error {
			r, err := do("PUT", fmt.Sprintf("%s/v2/%s/manifests/v%06d", *base, im.repo, i), bytes.NewReader(im.man), int64(len(im.man)), mt, 201)
			if err == nil {
				drain(r)
			}
			return err
		})
		seen := 0
		run("tags-list", 5, 1, 0, func(int) error {
			seen = 0
			last := ""
			for {
				r, err := do("GET", fmt.Sprintf("%s/v2/%s/tags/list?n=1000&last=%s", *base, im.repo, last), nil, 0, "", 200)
				if err != nil {
					return err
				}
				var l struct{ Tags []string }
				json.NewDecoder(r.Body).Decode(&l)
				drain(r)
				seen += len(l.Tags)
				if len(l.Tags) == 0 || r.Header.Get("Link") == "" {
					if seen != *tags {
						return fmt.Errorf("saw %d of %d tags", seen, *tags)
					}
					return nil
				}
				last = l.Tags[len(l.Tags)-1]
			}
		})
	}
	if anyFailed {
		os.Exit(1)
	}
}
