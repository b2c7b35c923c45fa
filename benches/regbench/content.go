package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
)

type blob struct {
	bytes  []byte
	digest string
}

func newBlob(b []byte) blob {
	h := sha256.Sum256(b)
	return blob{b, "sha256:" + hex.EncodeToString(h[:])}
}

// noise depends on nothing but its name and number, so that another process knows what this one pushed.
func noise(name string, number, length int) []byte {
	var seed [32]byte
	copy(seed[:], name)
	binary.BigEndian.PutUint64(seed[24:], uint64(number))
	b := make([]byte, length)
	// Read of a ChaCha8 never fails.
	_, _ = rand.NewChaCha8(seed).Read(b)
	return b
}

type image struct {
	repository, tag         string
	config, layer, manifest blob
}

// newImages makes small images, over eight repositories: a layer of 10 KiB, a config, a manifest.
func newImages(name string, n int) []*image {
	made := make([]*image, n)
	for i := range made {
		made[i] = newImage(fmt.Sprintf("%s/%s-%d", *prefix, name, i%8), fmt.Sprintf("t%d", i), newBlob(noise(name, i, 10<<10)))
	}
	return made
}

func newImage(repository, tag string, layer blob) *image {
	im := &image{repository: repository, tag: tag, layer: layer}
	im.config = newBlob(fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["%s"]}}`, layer.digest))
	im.manifest = newBlob(fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"%s","size":%d}]}`,
		manifestType, im.config.digest, len(im.config.bytes), layer.digest, len(layer.bytes)))
	return im
}

// newBigBlobs makes n blobs that share one buffer: each begins 64 bytes after the one before.
func newBigBlobs(name string, n, length int) []blob {
	buffer := noise(name, 0, length+n*64)
	made := make([]blob, n)
	for i := range made {
		made[i] = newBlob(buffer[i*64 : i*64+length])
	}
	return made
}
