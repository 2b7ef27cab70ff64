package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/url"
	"testing"
)

func certificate(t *testing.T, template *x509.Certificate) *tls.ConnectionState {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(1)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}}}
}

func TestCertificateNamesItsUser(t *testing.T) {
	state := certificate(t, &x509.Certificate{
		Subject:        pkix.Name{CommonName: "bob", Organization: []string{"Shop"}, Country: []string{"AT"}},
		DNSNames:       []string{"a.example", "b.example"},
		EmailAddresses: []string{"bob@example.org"},
		URIs:           []*url.URL{{Scheme: "spiffe", Host: "shop", Path: "/bob"}},
		IPAddresses:    []net.IP{net.IPv4(10, 0, 0, 1)},
	})
	for _, tc := range []struct {
		field CertificateField
		san   AlternativeNameType
		index int
		want  string
	}{
		{CommonName, "", 0, "bob"},
		{CommonName, "nonsense", 7, "bob"},
		{DistinguishedName, "", 0, "CN=bob,O=Shop,C=AT"},
		{AlternativeName, "", 0, "a.example"},
		{AlternativeName, DNSName, 1, "b.example"},
		{AlternativeName, EmailName, 0, "bob@example.org"},
		{AlternativeName, URIName, 0, "spiffe://shop/bob"},
		{AlternativeName, IPName, 0, "10.0.0.1"},
		{AlternativeName, DNSName, 2, ""},
		{AlternativeName, DNSName, -1, ""},
		{AlternativeName, "other", 0, ""},
		{"", "", 0, ""},
	} {
		got, err := CertificateName(state, tc.field, tc.san, tc.index)
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%+v: %q, %v", tc, got, err)
		}
		if err != nil && !errors.Is(err, ErrNoCertificateName) {
			t.Errorf("%+v: error %v does not wrap ErrNoCertificateName", tc, err)
		}
	}
}

func TestUnverifiedCertificateNamesNobody(t *testing.T) {
	state := certificate(t, &x509.Certificate{Subject: pkix.Name{CommonName: "admin"}})
	state.VerifiedChains = nil
	for _, s := range []*tls.ConnectionState{nil, {}, state} {
		if name, err := CertificateName(s, CommonName, "", 0); err == nil {
			t.Errorf("named %q", name)
		}
	}
}

func TestAmbiguousOrMissingCommonNameIsRefused(t *testing.T) {
	for _, subject := range []pkix.Name{
		{Organization: []string{"Shop"}},
		{ExtraNames: []pkix.AttributeTypeAndValue{{Type: oidCommonName, Value: "bob"}, {Type: oidCommonName, Value: "admin"}}},
	} {
		if name, err := CertificateName(certificate(t, &x509.Certificate{Subject: subject}), CommonName, "", 0); err == nil {
			t.Errorf("%v: named %q", subject, name)
		}
	}
}
