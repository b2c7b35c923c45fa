package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
)

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// An answer with another status than the scenario can go on with.
type statusError struct {
	method, url string
	status      int
	body        []byte
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s %s: %d %s", e.method, e.url, e.status, e.body)
}

var client = &http.Client{Transport: &http.Transport{
	MaxIdleConnsPerHost: 256, DisableCompression: true, ReadBufferSize: 256 << 10, WriteBufferSize: 256 << 10,
}}

// shown is what requests show, each in its turn.
type shown struct {
	lines []string
	turns atomic.Uint64
}

func (s *shown) next() []string {
	turn := s.turns.Add(1) % uint64(len(s.lines))
	return s.lines[turn : turn+1 : turn+1]
}

// By repository; "" is for those that have none of their own.
var authorizations = map[string]*shown{}

// readAuthorizations: a line is a header's value, good for all repositories, or a repository, a tab and a value.
func readAuthorizations() error {
	if *authorization == "" {
		return nil
	}
	text, err := os.ReadFile(*authorization)
	if err != nil {
		return err
	}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		repository, value, own := strings.Cut(line, "\t")
		if !own {
			repository, value = "", line
		}
		if authorizations[repository] == nil {
			authorizations[repository] = &shown{}
		}
		authorizations[repository].lines = append(authorizations[repository].lines, value)
	}
	return nil
}

// authorize shows what is there for the request's repository.
func authorize(r *http.Request) {
	if len(authorizations) == 0 {
		return
	}
	name := strings.TrimPrefix(r.URL.Path, "/v2/")
	for _, kind := range []string{"/manifests/", "/blobs/", "/tags/", "/referrers/"} {
		if before, _, found := strings.Cut(name, kind); found {
			name = before
			break
		}
	}
	for _, repository := range []string{name, ""} {
		if s := authorizations[repository]; s != nil {
			r.Header["Authorization"] = s.next()
			return
		}
	}
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

type body struct {
	io.Reader
	length int64 // -1: of unknown length, so sent in chunks
	kind   string
	extra  map[string]string
}

func bytesBody(b []byte, kind string) *body {
	return &body{Reader: bytes.NewReader(b), length: int64(len(b)), kind: kind}
}

func do(method, target string, b *body, want ...int) (*http.Response, error) {
	return doWith(context.Background(), client, method, target, b, want...)
}

func doWith(ctx context.Context, hc *http.Client, method, target string, b *body, want ...int) (*http.Response, error) {
	var reader io.Reader
	if b != nil {
		reader = b.Reader
	}
	r, err := http.NewRequestWithContext(ctx, method, target, reader)
	if err != nil {
		return nil, err
	}
	if b != nil {
		r.ContentLength = b.length
		r.Header.Set("Content-Type", b.kind)
		for name, value := range b.extra {
			r.Header.Set(name, value)
		}
	}
	r.Header.Set("Accept", manifestType)
	if name, password, ok := strings.Cut(*user, ":"); ok {
		r.SetBasicAuth(name, password)
	}
	authorize(r)
	resp, err := hc.Do(r)
	if err != nil {
		return nil, err
	}
	for _, w := range want {
		if resp.StatusCode == w {
			return resp, nil
		}
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
	resp.Body.Close()
	return nil, &statusError{method, target, resp.StatusCode, text}
}

func drain(r *http.Response) int64 {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r.Body, *buf)
	r.Body.Close()
	return n
}

// send is do for answers whose body says nothing.
func send(method, target string, b *body, want ...int) (http.Header, error) {
	r, err := do(method, target, b, want...)
	if err != nil {
		return nil, err
	}
	drain(r)
	return r.Header, nil
}

// fetch compares every byte with the bytes that were pushed, as they arrive.
func fetch(target string, want []byte) error {
	r, err := do("GET", target, nil, 200)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	at := 0
	for {
		n, err := r.Body.Read(*buf)
		if at+n > len(want) || !bytes.Equal((*buf)[:n], want[at:at+n]) {
			return fmt.Errorf("GET %s: other bytes than were pushed, after byte %d", target, at)
		}
		at += n
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if at != len(want) {
		return fmt.Errorf("GET %s: %d of %d bytes", target, at, len(want))
	}
	return nil
}

func at(repository, rest string) string { return *base + "/v2/" + repository + rest }

// begin opens an upload session and answers where it is.
func begin(repository string) (*url.URL, error) {
	header, err := send("POST", at(repository, "/blobs/uploads/"), nil, 202)
	if err != nil {
		return nil, err
	}
	return location(header)
}

func location(header http.Header) (*url.URL, error) {
	to, err := url.Parse(header.Get("Location"))
	if err != nil {
		return nil, err
	}
	root, err := url.Parse(*base)
	if err != nil {
		return nil, err
	}
	return root.ResolveReference(to), nil
}

func finish(session *url.URL, digest string, b *body) error {
	q := session.Query()
	q.Set("digest", digest)
	session.RawQuery = q.Encode()
	_, err := send("PUT", session.String(), b, 201)
	return err
}

// pushBlob is POST and PUT, as most clients push.
func pushBlob(repository string, b blob) error {
	session, err := begin(repository)
	if err != nil {
		return err
	}
	return finish(session, b.digest, bytesBody(b.bytes, "application/octet-stream"))
}

func putManifest(repository, reference string, manifest []byte) error {
	_, err := send("PUT", at(repository, "/manifests/"+reference), bytesBody(manifest, manifestType), 201)
	return err
}

func pushImage(im *image) error {
	for _, b := range []blob{im.layer, im.config} {
		if err := pushBlob(im.repository, b); err != nil {
			return err
		}
	}
	return putManifest(im.repository, im.tag, im.manifest.bytes)
}

// pullImage is three GETs: the manifest by its tag, the config, the layer.
func pullImage(im *image) error {
	if err := fetch(at(im.repository, "/manifests/"+im.tag), im.manifest.bytes); err != nil {
		return err
	}
	for _, b := range []blob{im.config, im.layer} {
		if err := fetch(at(im.repository, "/blobs/"+b.digest), b.bytes); err != nil {
			return err
		}
	}
	return nil
}
