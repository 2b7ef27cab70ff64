package testbroker

import "fmt"

// config is the child's configuration file.
func (b *Broker) config() []byte {
	b.mu.Lock()
	port := b.port
	b.mu.Unlock()
	return fmt.Appendf(nil, `data_dir: %q
listeners:
  - address: "127.0.0.1:%d"
%s
`, b.DataDir(), port, b.opts.Config)
}
