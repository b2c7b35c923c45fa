package main

import (
	"fmt"
	"strconv"
)

// needSmall makes the small images and pushes them, unless push-small did.
func (b *bench) needSmall() error {
	if b.small != nil {
		return nil
	}
	b.small = newImages("small", *images)
	return prepare(len(b.small), *clients, func(i int) error { return pushImage(b.small[i]) })
}

// pushSmall: one operation is two blobs and a manifest under a tag.
func pushSmall(b *bench) error {
	b.small = newImages("small", *images)
	b.measureOnce("push-small", *images, *clients, 10<<10, func(i int) error { return pushImage(b.small[i]) },
		unless("pull-small", func() error { return pullAll(b.small) }))
	return nil
}

func pullAll(all []*image) error {
	return prepare(len(all), *clients, func(i int) error { return pullImage(all[i]) })
}

func pullSmall(b *bench) error {
	if err := b.needSmall(); err != nil {
		return err
	}
	b.measure("pull-small", *images, *clients, 10<<10, func(i int) error { return pullImage(b.small[i%len(b.small)]) })
	return nil
}

func hotManifest(b *bench) error {
	if err := b.needSmall(); err != nil {
		return err
	}
	hot := b.small[0]
	target := at(hot.repository, "/manifests/"+hot.tag)
	b.measure("manifest", *images, *clients, 0, func(int) error { return fetch(target, hot.manifest.bytes) })
	return nil
}

// heads: manifests and blobs by turns, over all images.
func heads(b *bench) error {
	if err := b.needSmall(); err != nil {
		return err
	}
	b.measure("head", *images*2, *clients, 0, func(i int) error {
		im := b.small[i/2%len(b.small)]
		target, want := at(im.repository, "/manifests/"+im.tag), im.manifest
		if i%2 == 1 {
			target, want = at(im.repository, "/blobs/"+im.layer.digest), im.layer
		}
		header, err := send("HEAD", target, nil, 200)
		if err != nil {
			return err
		}
		if header.Get("Content-Length") != strconv.Itoa(len(want.bytes)) || header.Get("Docker-Content-Digest") != want.digest {
			return fmt.Errorf("HEAD %s: length %s, digest %s", target, header.Get("Content-Length"), header.Get("Docker-Content-Digest"))
		}
		return nil
	})
	return nil
}

// mixed: of four operations three pull an image and one pushes a new one.
func mixed(b *bench) error {
	if err := b.needSmall(); err != nil {
		return err
	}
	fresh := newImages("mixed", (*images+3)/4)
	b.measureOnce("mixed", *images, *clients, 10<<10, func(i int) error {
		if i%4 == 0 {
			return pushImage(fresh[i/4])
		}
		// A stride without a common factor with the number of images, so that neighbours are not pulled together.
		return pullImage(b.small[i*7919%len(b.small)])
	}, func() error { return pullAll(fresh) })
	return nil
}
