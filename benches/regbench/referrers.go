package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
)

const indexType = "application/vnd.oci.image.index.v1+json"

// referrers: artifacts that name one subject are put, then all of them are listed.
func referrers(b *bench) error {
	subject := newImage(*prefix+"/referrers", "subject", newBlob(noise("referrers", 0, 1024)))
	if err := pushImage(subject); err != nil {
		return err
	}
	empty := newBlob([]byte("{}"))
	if err := pushBlob(subject.repository, empty); err != nil {
		return err
	}
	artifacts := make([]blob, *refs)
	for i := range artifacts {
		descriptor := fmt.Sprintf(`{"mediaType":"application/vnd.oci.empty.v1+json","digest":"%s","size":2}`, empty.digest)
		artifacts[i] = newBlob(fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"%s","artifactType":"application/vnd.example.signature","config":%s,"layers":[%s],"subject":{"mediaType":"%s","digest":"%s","size":%d},"annotations":{"number":"%d"}}`,
			manifestType, descriptor, descriptor, manifestType, subject.manifest.digest, len(subject.manifest.bytes), i))
	}
	var status *statusError
	if _, err := referrerPage(at(subject.repository, "/referrers/"+subject.manifest.digest), map[string]int{}); errors.As(err, &status) && status.status == 404 {
		b.skip("referrer-put", "no referrers API (404)")
		b.skip("referrers-list", "no referrers API (404)")
		return nil
	}
	b.measureOnce("referrer-put", *refs, *clients, 0, func(i int) error {
		return putManifest(subject.repository, artifacts[i].digest, artifacts[i].bytes)
	}, nil)
	b.measure("referrers-list", 50, 4, 0, func(int) error { return listReferrers(subject, artifacts) })
	return nil
}

func listReferrers(subject *image, artifacts []blob) error {
	seen := make(map[string]int, len(artifacts))
	next := at(subject.repository, "/referrers/"+subject.manifest.digest)
	for next != "" {
		var err error
		if next, err = referrerPage(next, seen); err != nil {
			return err
		}
	}
	for _, artifact := range artifacts {
		if seen[artifact.digest] != len(artifact.bytes) {
			return fmt.Errorf("referrer %s is listed with %d bytes instead of %d", artifact.digest, seen[artifact.digest], len(artifact.bytes))
		}
	}
	if len(seen) != len(artifacts) {
		return fmt.Errorf("%d referrers are listed instead of %d", len(seen), len(artifacts))
	}
	return nil
}

var nextLink = regexp.MustCompile(`<([^>]*)>; *rel="?next`)

// referrerPage notes digests and sizes, and answers where the next page is, or nothing.
func referrerPage(target string, seen map[string]int) (string, error) {
	r, err := do("GET", target, nil, 200)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return "", err
	}
	var index struct {
		MediaType string
		Manifests []struct {
			Digest string
			Size   int
		}
	}
	if err := json.Unmarshal(text, &index); err != nil {
		return "", err
	}
	if index.MediaType != indexType {
		return "", fmt.Errorf("GET %s: media type %q instead of an index", target, index.MediaType)
	}
	for _, m := range index.Manifests {
		seen[m.Digest] = m.Size
	}
	link := nextLink.FindStringSubmatch(r.Header.Get("Link"))
	if link == nil {
		return "", nil
	}
	here, err := url.Parse(target)
	if err != nil {
		return "", err
	}
	to, err := here.Parse(link[1])
	if err != nil {
		return "", err
	}
	return to.String(), nil
}
