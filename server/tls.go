package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// TLSFiles name what a TLS listener is made of. All are PEM.
type TLSFiles struct {
	Cert, Key string
	CA        string // authorities for client certificates; needed with VerifyPeer
	// VerifyPeer asks clients for a certificate and refuses one that does not verify.
	VerifyPeer bool
	// RequirePeer also refuses clients that send none.
	RequirePeer bool
	MinVersion  uint16 // tls.VersionTLS12 or 13
}

// reloadPeriod is how often the files are looked at, at the most.
const reloadPeriod = time.Second

// certificates serves the files' content and reads them anew when they change. A change
// that cannot be read is logged and the last good one kept.
type certificates struct {
	files TLSFiles
	log   zerolog.Logger

	mu      sync.Mutex
	config  *tls.Config
	stamp   string // modification times and sizes of what config was made of
	checked time.Time
}

// LoadTLS reads the files and returns a configuration for a listener that follows their
// changes: new connections get the new certificates within a second.
func LoadTLS(files TLSFiles, log zerolog.Logger) (*tls.Config, error) {
	c := &certificates{files: files, log: log}
	stamp, err := c.stat()
	if err != nil {
		return nil, err
	}
	if c.config, err = c.read(); err != nil {
		return nil, err
	}
	c.stamp, c.checked = stamp, time.Now()
	outer := c.config.Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current(), nil }
	return outer, nil
}

func (c *certificates) current() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) < reloadPeriod {
		return c.config
	}
	c.checked = time.Now()
	stamp, err := c.stat()
	if err == nil && stamp == c.stamp {
		return c.config
	}
	var fresh *tls.Config
	if err == nil {
		fresh, err = c.read()
	}
	if err != nil {
		c.log.Error().Err(err).Msg("changed certificate files cannot be used, keeping the old ones")
		c.stamp = stamp // say it once a change
		return c.config
	}
	c.config, c.stamp = fresh, stamp
	c.log.Info().Str("cert", c.files.Cert).Msg("certificates reloaded")
	return c.config
}

func (c *certificates) stat() (string, error) {
	stamp := ""
	for _, name := range []string{c.files.Cert, c.files.Key, c.files.CA} {
		if name == "" {
			continue
		}
		fi, err := os.Stat(name)
		if err != nil {
			return "", err
		}
		stamp += fmt.Sprintf("%d/%d ", fi.ModTime().UnixNano(), fi.Size())
	}
	return stamp, nil
}

func (c *certificates) read() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", c.files.Cert, err)
	}
	t := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: max(c.files.MinVersion, tls.VersionTLS12)}
	if !c.files.VerifyPeer {
		return t, nil
	}
	pem, err := os.ReadFile(c.files.CA)
	if err != nil {
		return nil, err
	}
	t.ClientCAs = x509.NewCertPool()
	if !t.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("authorities %s: no certificate in it", c.files.CA)
	}
	t.ClientAuth = tls.VerifyClientCertIfGiven
	if c.files.RequirePeer {
		t.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return t, nil
}
