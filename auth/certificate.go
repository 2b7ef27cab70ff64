package auth

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
)

// CertificateField says which part of a client certificate is the user name, with RabbitMQ's names for
// ssl_cert_login_from.
type CertificateField string

// The parts of a certificate that can name a user.
const (
	CommonName        CertificateField = "common_name"
	AlternativeName   CertificateField = "subject_alternative_name"
	DistinguishedName CertificateField = "distinguished_name"
)

// AlternativeNameType is the kind of subject alternative name that counts, with RabbitMQ's names for
// ssl_cert_login_san_type.
type AlternativeNameType string

// Kinds of subject alternative names.
const (
	DNSName   AlternativeNameType = "dns"
	EmailName AlternativeNameType = "email"
	URIName   AlternativeNameType = "uri"
	IPName    AlternativeNameType = "ip"
)

// ErrNoCertificateName is wrapped by the errors of CertificateName.
var ErrNoCertificateName = errors.New("auth: no user name in the client certificate")

// CertificateName gives the user name for SASL EXTERNAL. The certificate must have been verified by the
// handshake up to a configured authority; without that the name means nothing. san and index choose
// among the alternative names and are not looked at for the other fields; the empty san is DNSName.
func CertificateName(state *tls.ConnectionState, field CertificateField, san AlternativeNameType, index int) (string, error) {
	if state == nil || len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return "", fmt.Errorf("%w: no verified certificate", ErrNoCertificateName)
	}
	cert := state.VerifiedChains[0][0]
	var name string
	var err error
	switch field {
	case CommonName:
		name, err = commonName(cert)
	case AlternativeName:
		name, err = alternativeName(cert, san, index)
	case DistinguishedName:
		name, err = distinguishedName(cert)
	default:
		err = fmt.Errorf("unknown field %q", field)
	}
	if err == nil && name == "" {
		err = fmt.Errorf("%s is empty", field)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoCertificateName, err)
	}
	return name, nil
}

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// commonName refuses a subject with several common names: which one counts would be ours to guess.
func commonName(cert *x509.Certificate) (string, error) {
	name, n := "", 0
	for _, attr := range cert.Subject.Names {
		if !attr.Type.Equal(oidCommonName) {
			continue
		}
		s, ok := attr.Value.(string)
		if !ok {
			return "", errors.New("common_name is not a string")
		}
		name, n = s, n+1
	}
	if n > 1 {
		return "", errors.New("more than one common_name")
	}
	return name, nil
}

func alternativeName(cert *x509.Certificate, san AlternativeNameType, index int) (string, error) {
	var names []string
	switch san {
	case DNSName, "":
		names = cert.DNSNames
	case EmailName:
		names = cert.EmailAddresses
	case URIName:
		for _, u := range cert.URIs {
			names = append(names, u.String())
		}
	case IPName:
		for _, ip := range cert.IPAddresses {
			names = append(names, ip.String())
		}
	default:
		return "", fmt.Errorf("unknown alternative name type %q", san)
	}
	if index < 0 || index >= len(names) {
		return "", fmt.Errorf("no alternative name %d of type %q, there are %d", index, san, len(names))
	}
	return names[index], nil
}

// distinguishedName reads the subject as it stands in the certificate; Subject.String would reorder it.
func distinguishedName(cert *x509.Certificate) (string, error) {
	return parseName(cert.RawSubject)
}

func parseName(raw []byte) (string, error) {
	var seq pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &seq); err != nil {
		return "", err
	} else if len(rest) > 0 {
		return "", errors.New("trailing bytes after the name")
	}
	return seq.String(), nil
}

// Name renders a name as it stands in a certificate, the most specific part first; "" if it cannot be read.
func Name(raw []byte) string {
	name, _ := parseName(raw)
	return name
}
