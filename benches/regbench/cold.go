package main

// The cold scenarios take two processes: one fills, then the server is stopped, the page cache dropped and the server
// started again, then the other pulls each thing once.

func coldSmall() []*image { return newImages("cold", min(*images, 500)) }

func coldBig() []blob { return newBigBlobs("cold", *bigN/2, bigBytes()) }

func coldRepository() string { return *prefix + "/cold-big" }

func coldFill(*bench) error {
	small, big := coldSmall(), coldBig()
	if err := prepare(len(small), *clients, func(i int) error { return pushImage(small[i]) }); err != nil {
		return err
	}
	return prepare(len(big), *bigC, func(i int) error { return pushBlob(coldRepository(), big[i]) })
}

func coldPull(b *bench) error {
	small, big := coldSmall(), coldBig()
	b.measureOnce("cold-pull-small", len(small), *clients, 10<<10, func(i int) error { return pullImage(small[i]) }, nil)
	b.measureOnce("cold-pull-big", len(big), *bigC, bigBytes(), func(i int) error {
		return fetch(at(coldRepository(), "/blobs/"+big[i].digest), big[i].bytes)
	}, nil)
	return nil
}
