package testbroker

import (
	"fmt"
	"strings"
)

// config is the child's configuration file.
func (b *Broker) config() []byte {
	b.mu.Lock()
	port := b.port
	b.mu.Unlock()
	// Many brokers run at once.
	own := ""
	for _, section := range []string{"management", "metrics"} {
		if !strings.Contains(b.opts.Config, section+":") {
			own += section + ": {listen: \"127.0.0.1:0\"}\n"
		}
	}
	return fmt.Appendf(nil, `data_dir: %q
listeners:
  - address: "127.0.0.1:%d"
%s
%s`, b.DataDir(), port, b.opts.Config, own)
}
