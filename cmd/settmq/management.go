package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/config"
	"github.com/settmq/settmq/management"
	"github.com/settmq/settmq/metrics"
	"github.com/settmq/settmq/server"
)

// api is the management API of a running broker and what it listens on.
type api struct {
	server  *management.Server
	metrics *http.Server // of the listener of their own
	serving sync.WaitGroup
}

// listenMetrics takes the address of the metrics; nil if they are off, or the usual port is taken.
func listenMetrics(cfg *config.Config, log zerolog.Logger) (net.Listener, error) {
	address, optional := cfg.Metrics.Address()
	if address == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", address)
	switch {
	case err == nil:
		return l, nil
	case optional:
		log.Warn().Err(err).Msg("no metrics for Prometheus; set metrics.listen to another address")
		return nil, nil
	}
	return nil, fmt.Errorf("cannot listen on %s for metrics: %w", address, err)
}

// serveMetrics answers on l. Who scrapes sends little and reads slowly at worst.
func (a *api) serveMetrics(l net.Listener, h http.Handler, log zerolog.Logger) {
	a.metrics = &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10,
	}
	a.server.Listening(management.Listener{Protocol: "http/prometheus", Addr: l.Addr()})
	log.Info().Str("url", "http://"+l.Addr().String()+"/metrics").Msg("metrics for Prometheus")
	a.serving.Go(func() {
		if err := a.metrics.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error().Err(err).Str("address", l.Addr().String()).Msg("listener failed")
		}
	})
}

// listenManagement takes the address of the API; nil if it is off.
func listenManagement(cfg *config.Config, log zerolog.Logger) (net.Listener, error) {
	m := &cfg.Management
	if m.Listen == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", m.Listen)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s for the management API: %w", m.Listen, err)
	}
	if m.TLS.Cert == "" {
		return l, nil
	}
	t, err := server.LoadTLS(tlsFiles(&m.TLS), log)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("management.tls: %w", err), l.Close())
	}
	return tls.NewListener(l, t), nil
}

// certificates are the files that listeners show.
func certificates(cfg *config.Config) (files []string) {
	if cfg.Management.TLS.Cert != "" {
		files = append(files, cfg.Management.TLS.Cert)
	}
	for _, l := range cfg.Listeners {
		if l.TLS != nil {
			files = append(files, l.TLS.Cert)
		}
	}
	return files
}

// serveManagement answers on l and, metrics only, on scrapes, which may be nil, and on the socket. The data directory is this broker's already, so
// that nobody else can be serving the socket.
func serveManagement(cfg *config.Config, file string, b *broker.Broker, l, scrapes net.Listener, log zerolog.Logger) (*api, error) {
	m := metrics.New(b, metrics.Options{
		Log: log.With().Str("component", "metrics").Logger(), Version: cfg.ServerProperties.Version, SoftwareVersion: buildVersion(),
	})
	a := &api{server: management.New(b, management.Options{
		Log: log.With().Str("component", "management").Logger(), MaxMessageSize: int(cfg.MaxMessageSize),
		Metrics: m, DataDir: cfg.DataDir, ConfigFile: file, Certificates: certificates(cfg), MaxAMQPConnections: int(cfg.Limits.MaxConnections),
		Product: cfg.ServerProperties.Product, Version: cfg.ServerProperties.Version, SoftwareVersion: buildVersion(),
	})}
	serve := func(l net.Listener, with func(net.Listener) error) {
		a.serving.Go(func() {
			if err := with(l); err != nil {
				log.Error().Err(err).Str("address", l.Addr().String()).Msg("listener failed")
			}
		})
	}
	if path := cfg.ManagementSocket(); path != "" {
		socket, err := management.ListenLocal(path)
		switch {
		case err == nil:
			log.Info().Str("socket", path).Msg("management API for the command line")
			serve(socket, a.server.ServeLocal)
		case cfg.Management.Socket == "auto":
			log.Warn().Err(err).Msg("no socket for the command line; set management.socket to another path")
		default:
			return nil, fmt.Errorf("management.socket: %w", err)
		}
	}
	if l != nil {
		protocol := "http"
		if cfg.Management.TLS.Cert != "" {
			protocol = "https"
		}
		a.server.Listening(management.Listener{Protocol: protocol, Addr: l.Addr()})
		log.Info().Str("url", protocol+"://"+l.Addr().String()).Msg("management API")
		serve(l, a.server.Serve)
	}
	if scrapes != nil {
		a.serveMetrics(scrapes, m, log)
	}
	return a, nil
}

// shutdown waits for the requests under way, until ctx is done.
func (a *api) shutdown(ctx context.Context) {
	if a.metrics != nil {
		_ = a.metrics.Close() // the next scrape finds nobody either
	}
	a.server.Shutdown(ctx)
	a.serving.Wait()
}
