package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"time"
)

const page = 1000

// tagName sorts as it counts, in every registry's order.
func tagName(i int) string { return fmt.Sprintf("v%06d", i) }

// taggedImage pushes the one image that carries all tags of a repository.
func taggedImage(repository string) (*image, error) {
	im := newImage(*prefix+"/"+repository, "", newBlob(noise(repository, 0, 1024)))
	for _, b := range []blob{im.layer, im.config} {
		if err := pushBlob(im.repository, b); err != nil {
			return nil, err
		}
	}
	return im, nil
}

func tagPut(b *bench) (err error) {
	if b.tagged, err = taggedImage("tags"); err != nil {
		return err
	}
	b.measureOnce("tag-put", *tags, *clients, 0, func(i int) error {
		return putManifest(b.tagged.repository, tagName(i), b.tagged.manifest.bytes)
	}, func() error {
		return prepare(*tags, *clients, func(i int) error {
			return fetch(at(b.tagged.repository, "/manifests/"+tagName(i)), b.tagged.manifest.bytes)
		})
	})
	return nil
}

func tagsList(b *bench) (err error) {
	if b.tagged == nil {
		if b.tagged, err = taggedImage("tags"); err != nil {
			return err
		}
		if err = putTags(b.tagged, *tags, time.Time{}); err != nil {
			return err
		}
	}
	b.measure("tags-list", 5, 1, 0, func(int) error { return listAll(b.tagged.repository, *tags) })
	return nil
}

// tagsMany: the whole list, and one page of it after any tag.
func tagsMany(b *bench) error {
	im, err := taggedImage("many")
	if err != nil {
		return err
	}
	if err := putTags(im, *many, time.Now().Add(*fill)); errors.Is(err, errTooSlow) {
		for _, name := range []string{"tags-many-list", "tags-many-page"} {
			b.skip(name, err.Error())
		}
		return nil
	} else if err != nil {
		return err
	}
	b.measure("tags-many-list", 3, 1, 0, func(int) error { return listAll(im.repository, *many) })
	b.measure("tags-many-page", 200, 4, 0, func(i int) error {
		last := rand.N(*many)
		got, err := tagPage(im.repository, tagName(last))
		if err != nil {
			return err
		}
		return sameTags(got, last+1, min(page, *many-last-1))
	})
	return nil
}

var errTooSlow = errors.New("too slow")

// putTags gives up at the deadline, if it is not zero.
func putTags(im *image, n int, deadline time.Time) error {
	put := 0
	const step = 2000
	for put < n {
		if !deadline.IsZero() && time.Now().After(deadline) {
			return fmt.Errorf("%w: only %d of %d tags were put within %s", errTooSlow, put, n, *fill)
		}
		next := min(step, n-put)
		if err := prepare(next, *clients, func(i int) error { return putManifest(im.repository, tagName(put+i), im.manifest.bytes) }); err != nil {
			return err
		}
		put += next
	}
	return nil
}

func tagPage(repository, last string) ([]string, error) {
	r, err := do("GET", at(repository, fmt.Sprintf("/tags/list?n=%d&last=%s", page, url.QueryEscape(last))), nil, 200)
	if err != nil {
		return nil, err
	}
	var list struct{ Tags []string }
	err = json.NewDecoder(r.Body).Decode(&list)
	drain(r)
	return list.Tags, err
}

// listAll reads page after page until one is not full, and compares every name.
func listAll(repository string, n int) error {
	last := ""
	for seen := 0; ; {
		got, err := tagPage(repository, last)
		if err != nil {
			return err
		}
		if err := sameTags(got, seen, min(page, n-seen)); err != nil {
			return err
		}
		seen += len(got)
		if len(got) < page {
			return nil
		}
		last = got[len(got)-1]
	}
}

func sameTags(got []string, from, n int) error {
	if len(got) != n {
		return fmt.Errorf("a page of %d tags instead of %d", len(got), n)
	}
	for i, tag := range got {
		if tag != tagName(from+i) {
			return fmt.Errorf("tag %s where %s belongs", tag, tagName(from+i))
		}
	}
	return nil
}
