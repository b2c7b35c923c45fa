package main

import (
	"bytes"
	"fmt"
	"io"
	"net/url"
)

func bigRepository() string { return *prefix + "/big" }

func bigBytes() int { return *bigMiB << 20 }

func (b *bench) needBig() error {
	if b.big != nil {
		return nil
	}
	b.big = newBigBlobs("big", *bigN, bigBytes())
	return prepare(*bigN, *bigC, func(i int) error { return pushBlob(bigRepository(), b.big[i]) })
}

func fetchBlobs(repository string, all []blob) error {
	return prepare(len(all), *bigC, func(i int) error { return fetch(at(repository, "/blobs/"+all[i].digest), all[i].bytes) })
}

func pushBig(b *bench) error {
	b.big = newBigBlobs("big", *bigN, bigBytes())
	b.measureOnce("push-big", *bigN, *bigC, bigBytes(),
		func(i int) error { return pushBlob(bigRepository(), b.big[i]) },
		unless("pull-big", func() error { return fetchBlobs(bigRepository(), b.big) }))
	return nil
}

func pullBig(b *bench) error {
	if err := b.needBig(); err != nil {
		return err
	}
	for _, c := range []int{1, *bigC} {
		b.measure(fmt.Sprintf("pull-big-%d", c), *bigN, c, bigBytes(), func(i int) error {
			pulled := b.big[i%*bigN]
			return fetch(at(bigRepository(), "/blobs/"+pulled.digest), pulled.bytes)
		})
	}
	return nil
}

// pushStreamed: POST, one PATCH of unknown length, PUT without a body, as docker pushes.
func pushStreamed(b *bench) error {
	return b.uploads("push-streamed", func(session *url.URL, content blob) (*url.URL, error) {
		header, err := send("PATCH", session.String(), &body{
			Reader: io.MultiReader(bytes.NewReader(content.bytes)), length: -1, kind: "application/octet-stream",
		}, 202)
		if err != nil {
			return nil, err
		}
		return location(header)
	})
}

const chunk = 8 << 20

// pushChunked: PATCHes of 8 MiB with Content-Range, each where the answer to the last one said.
func pushChunked(b *bench) error {
	return b.uploads("push-chunked", func(session *url.URL, content blob) (*url.URL, error) {
		for from := 0; from < len(content.bytes); from += chunk {
			to := min(from+chunk, len(content.bytes))
			sent := bytesBody(content.bytes[from:to], "application/octet-stream")
			sent.extra = map[string]string{"Content-Range": fmt.Sprintf("%d-%d", from, to-1)}
			header, err := send("PATCH", session.String(), sent, 202)
			if err != nil {
				return nil, err
			}
			if session, err = location(header); err != nil {
				return nil, err
			}
		}
		return session, nil
	})
}

func (b *bench) uploads(name string, send func(*url.URL, blob) (*url.URL, error)) error {
	repository := *prefix + "/" + name
	content := newBigBlobs(name, *bigN, bigBytes())
	b.measureOnce(name, *bigN, *bigC, bigBytes(), func(i int) error {
		session, err := begin(repository)
		if err != nil {
			return err
		}
		if session, err = send(session, content[i]); err != nil {
			return err
		}
		return finish(session, content[i].digest, bytesBody(nil, "application/octet-stream"))
	}, func() error { return fetchBlobs(repository, content) })
	return nil
}
