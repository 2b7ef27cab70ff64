package journal

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
