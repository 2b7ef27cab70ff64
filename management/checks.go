package management

import (
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The health checks of RabbitMQ: 200 if all is well, else 503 with a reason. Those that are about a cluster hold on a
// single node.

var statusOK = object{{"status", "ok"}}

func checkFailed(reason string, more ...field) *reply {
	return &reply{status: http.StatusServiceUnavailable, body: append(object{{"status", "failed"}, {"reason", reason}}, more...)}
}

func checkOK(*request) (any, error) { return statusOK, nil }

func checkNode(r *request) (any, error) {
	if err := r.thisNode(); err != nil {
		return nil, err
	}
	return statusOK, nil
}

func checkQuorum(*request) (any, error) {
	return object{{"reason", "single node cluster"}, {"status", "ok"}}, nil
}

func checkAlarms(reason string) handler {
	return func(r *request) (any, error) {
		res, alarms := r.broker.Resources(), []object{}
		for _, a := range []struct {
			on       bool
			resource string
		}{{res.MemoryAlarm, "memory"}, {res.DiskAlarm, "disk"}} {
			if a.on {
				alarms = append(alarms, object{{"node", r.broker.Node()}, {"resource", a.resource}})
			}
		}
		if len(alarms) > 0 {
			return checkFailed(reason, field{"alarms", alarms}), nil
		}
		return statusOK, nil
	}
}

// checkService says whether clients are welcome.
func checkService(r *request) (any, error) {
	if r.server.stopping.Load() {
		return checkFailed("this broker is stopping"), nil
	}
	return statusOK, nil
}

func checkConnectionLimit(r *request) (any, error) {
	limit, have := r.server.o.MaxAMQPConnections, len(r.broker.Connections())
	if limit > 0 && have >= limit {
		return checkFailed("node connection limit is reached", field{"limit", limit}, field{"connections", have}), nil
	}
	return statusOK, nil
}

func hostPort(a net.Addr) (host string, port int) {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return a.String(), 0
	}
	return ap.Addr().Unmap().WithZone("").String(), int(ap.Port())
}

// encrypted reports whether the listener speaks TLS.
func (l Listener) encrypted() bool {
	return l.Protocol == "https" || strings.HasSuffix(l.Protocol, "/ssl")
}

func checkPort(r *request) (any, error) {
	port, err := strconv.ParseUint(r.param("port"), 10, 16)
	if err != nil {
		return nil, badRequest("Invalid port")
	}
	ports := []any{}
	for _, l := range r.server.listening() {
		_, p := hostPort(l.Addr)
		if p == int(port) {
			return object{{"port", p}, {"status", "ok"}}, nil
		}
		ports = append(ports, p)
	}
	return checkFailed("No active listener", field{"missing", int(port)}, field{"ports", ports}), nil
}

func checkProtocol(r *request) (any, error) {
	wanted := strings.ToLower(r.param("protocol"))
	if same, ok := map[string]string{"amqp091": "amqp", "amqps": "amqp/ssl", "http/ssl": "https"}[wanted]; ok {
		wanted = same
	}
	protocols := []string{}
	for _, l := range r.server.listening() {
		if !slices.Contains(protocols, l.Protocol) {
			protocols = append(protocols, l.Protocol)
		}
	}
	if slices.Contains(protocols, wanted) {
		return object{{"status", "ok"}, {"protocols", protocols}}, nil
	}
	return checkFailed("No active listener", field{"missing", []string{wanted}}, field{"protocols", protocols}), nil
}

// maxWithin bounds the number of units of a time, so that it stays a date.
const maxWithin = 10_000

func checkCertificates(r *request) (any, error) {
	within, err := strconv.Atoi(r.param("within"))
	if err != nil || within < 0 || within > maxWithin {
		return nil, badRequest("Invalid expiration value.")
	}
	until := time.Now()
	switch r.param("unit") {
	case "days":
		until = until.AddDate(0, 0, within)
	case "weeks":
		until = until.AddDate(0, 0, 7*within)
	case "months":
		until = until.AddDate(0, within, 0)
	case "years":
		until = until.AddDate(within, 0, 0)
	default:
		return nil, badRequest("Time unit not recognised. Supported units: days, weeks, months, years.")
	}
	expired := []object{}
	for _, file := range r.server.o.Certificates {
		cert, err := firstCertificate(file)
		if err != nil {
			return nil, err
		}
		if cert != nil && cert.NotAfter.Before(until) {
			expired = append(expired, object{
				{"node", r.broker.Node()}, {"certfile", file}, {"certfile_expires_on", []string{cert.NotAfter.UTC().Format(time.RFC3339)}},
			})
		}
	}
	if len(expired) > 0 {
		return checkFailed("Certificates expiring", field{"expired", expired}), nil
	}
	return statusOK, nil
}

// firstCertificate reads the certificate of a listener, which is the first in its file; nil if there is none.
func firstCertificate(file string) (*x509.Certificate, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return nil, nil
		}
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
	}
}
