package journal

import "hash/crc32"

// Settle waits until the keeper has nothing left to do.
func (j *Journal) Settle() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.err == nil && !j.closing && (!j.idle || len(j.retired) > 0 || j.wantReady > len(j.ready)) {
		j.cond.Wait()
	}
}

// Sizes of the format, for tests that damage files.
const (
	PageSize   = pageSize
	FragHeader = fragHeader
)

// Forge writes a header with valid checksums into the image of a segment, as only
// somebody could who knows its salt.
func Forge(image []byte, off int, kind, flags uint8, length, epoch, link uint32, seq, synced uint64) bool {
	h, ok, _ := parseHead(image, 'A')
	if !ok || off < 0 || off+fragHeader > len(image) {
		return false
	}
	var s segment
	s.adopt(&h)
	f := fragment{kind: kind, flags: flags, length: length, epoch: epoch, link: link, seq: seq, synced: synced}
	if end := int64(off) + fragHeader + int64(length); end <= int64(len(image)) {
		f.sum = crc32.Update(s.seed, castagnoli, image[off+fragHeader:end])
	}
	f.put(image[off:], &s)
	return true
}

// Header returns the fields of the header at off that Forge needs to continue the chain.
func Header(image []byte, off int) (seq, synced uint64, epoch, link, ownLink, length uint32, ok bool) {
	h, ok, _ := parseHead(image, 'A')
	if !ok {
		return
	}
	var s segment
	s.adopt(&h)
	var f fragment
	ok = f.parse(image[off:], &s)
	return f.seq, f.synced, f.epoch, f.link, f.ownLink, f.length, ok
}

// Recycle does with the n oldest segments what the keeper does with released ones.
func (j *Journal) Recycle(n int) error {
	j.mu.Lock()
	batch, failed := j.segments[:n:n], j.err
	j.segments = append([]*segment(nil), j.segments[n:]...)
	j.mu.Unlock()
	err := j.recycle(batch, failed)
	if err != nil {
		return j.fail(err)
	}
	return nil
}
