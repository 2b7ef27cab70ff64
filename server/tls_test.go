package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/auth"
)

// authority issues certificates. They are valid at the time of bubbles and today.
type authority struct {
	t      testing.TB
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t}
	der, key := a.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.key = key
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) issue(template *x509.Certificate) (der []byte, key *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.serial++
	template.SerialNumber = big.NewInt(a.serial)
	template.NotBefore, template.NotAfter = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	if der, err = x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer); err != nil {
		a.t.Fatal(err)
	}
	return der, key
}

// leaf makes a certificate for a server or a client of that name.
func (a *authority) leaf(name string) tls.Certificate {
	a.t.Helper()
	der, key := a.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// write stores a certificate as the files of a listener.
func (a *authority) write(files TLSFiles, c tls.Certificate) {
	a.t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		a.t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		files.Cert: {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, files.Key: {Type: "PRIVATE KEY", Bytes: key},
		files.CA: {Type: "CERTIFICATE", Bytes: a.cert.Raw},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
}

func tlsFiles(dir string) TLSFiles {
	return TLSFiles{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "ca.pem"), VerifyPeer: true}
}

// dialTLS makes a connection over TLS on a pipe.
func (r *rig) dialTLS(server, client *tls.Config) (*peer, *tls.Conn) {
	near, far := net.Pipe()
	r.s.accept(tls.Server(far, server))
	r.t.Cleanup(func() { _ = near.Close() })
	c := tls.Client(near, client)
	p := newPeer(r.t, c)
	return p, c
}

func TestTLSWithCertificateReload(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	files := tlsFiles(dir)
	ca.write(files, ca.leaf("first"))
	inBubble(t, func(t *testing.T, r *rig) {
		server, err := LoadTLS(files, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		use := func(name string) error {
			p, c := r.dialTLS(server, &tls.Config{RootCAs: ca.pool(), ServerName: name})
			if err := c.Handshake(); err != nil {
				_ = p.nc.Close()
				return err
			}
			go p.read()
			p.login(plain("guest", "guest"))
			p.open(0)
			p.channel(1)
			p.works()
			return nil
		}
		if err := use("first"); err != nil {
			t.Fatal(err)
		}
		ca.write(files, ca.leaf("second-server"))
		time.Sleep(reloadPeriod)
		if err := use("second-server"); err != nil {
			t.Errorf("after the change: %v", err)
		}
		if err := use("first"); err == nil {
			t.Error("the old certificate is still served")
		}
		// A broken file changes nothing.
		if err := os.WriteFile(files.Cert, []byte("half a certificate"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(reloadPeriod)
		if err := use("second-server"); err != nil {
			t.Errorf("after a bad change: %v", err)
		}
		ca.write(files, ca.leaf("the-third-one"))
		time.Sleep(reloadPeriod)
		if err := use("the-third-one"); err != nil {
			t.Errorf("after a good change behind a bad one: %v", err)
		}
	})
}

func TestExternalLoginWithClientCertificate(t *testing.T) {
	ca, stranger, dir := newAuthority(t), newAuthority(t), t.TempDir()
	files := tlsFiles(dir)
	ca.write(files, ca.leaf("server"))
	ann, nobody, forged := ca.leaf("ann"), ca.leaf("nobody"), stranger.leaf("ann")
	external := &amqp.ConnectionStartOk{ClientProperties: clientProperties, Mechanism: "EXTERNAL", Locale: "en_US"}
	user := func(s *tls.ConnectionState) (string, error) {
		return auth.CertificateName(s, auth.CertificateField("common_name"), "", 0)
	}
	inBubble(t, func(t *testing.T, r *rig) {
		server, err := LoadTLS(files, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		r.user("ann", "", "", ".*")
		connect := func(c *tls.Certificate) *peer {
			client := &tls.Config{RootCAs: ca.pool(), ServerName: "server", MaxVersion: tls.VersionTLS12}
			if c != nil {
				client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c, nil }
			}
			p, _ := r.dialTLS(server, client)
			return p
		}
		p := connect(&ann)
		go p.read()
		p.login(external)
		p.open(0)
		p.channel(1)
		p.send(1, &amqp.QueueDeclare{Queue: "q"})
		p.channelCloseExpected(1, 403, "ACCESS_REFUSED - configure access to queue 'q' in vhost '/' refused for user 'ann'")

		for name, c := range map[string]*tls.Certificate{"unknown user": &nobody, "no certificate": nil} {
			p := connect(c)
			go p.read()
			p.write([]byte(amqp.ProtocolHeader))
			expect[*amqp.ConnectionStart](p, 0)
			p.send(0, external)
			if m := expect[*amqp.ConnectionClose](p, 0); m.ReplyCode != 403 {
				t.Errorf("%s: %d %s", name, m.ReplyCode, m.ReplyText)
			}
			_ = p.nc.Close()
		}
		p = connect(&forged)
		if err := p.nc.(*tls.Conn).Handshake(); err == nil {
			// With TLS 1.2 the refusal is part of the handshake.
			t.Error("a certificate of a stranger was accepted")
		}
		_ = p.nc.Close()
		if n := r.conns(); n != 1 {
			t.Errorf("%d connections left", n)
		}
	}, func(o *Options) { o.CertificateUser = user })
}

func TestTLSHandshakeTimeout(t *testing.T) {
	ca := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ca.leaf("server")}}
	inBubble(t, func(t *testing.T, r *rig) {
		p, _ := r.dialTLS(config, &tls.Config{})
		start := time.Now()
		raw := p.nc.(*tls.Conn).NetConn()
		if _, err := raw.Read(make([]byte, 1)); err == nil {
			t.Error("the server spoke first")
		}
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("cut off after %v", d)
		}
		synctest.Wait()
		if n := r.conns(); n != 0 {
			t.Errorf("%d connections left", n)
		}
	})
}

func TestLoadTLSRefusesWhatIsNotThere(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	files := tlsFiles(dir)
	if _, err := LoadTLS(files, zerolog.Nop()); err == nil {
		t.Error("loaded files that are not there")
	}
	ca.write(files, ca.leaf("a"))
	if err := os.WriteFile(files.CA, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadTLS(files, zerolog.Nop()); err == nil {
		t.Error("loaded authorities without a certificate")
	}
	files.VerifyPeer = false
	c, err := LoadTLS(files, zerolog.Nop())
	if err != nil || c.ClientAuth != tls.NoClientCert || c.MinVersion != tls.VersionTLS12 {
		t.Errorf("%+v, %v", c, err)
	}
}
