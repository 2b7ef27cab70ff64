package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/settmq/settmq/auth"
	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/cli"
	"github.com/settmq/settmq/config"
	"github.com/settmq/settmq/internal/sysmem"
	"github.com/settmq/settmq/management"
	"github.com/settmq/settmq/server"
	"github.com/settmq/settmq/storage"
)

// Exit codes of serve and recover, beside those of the other commands. Supervisors may
// tell by them whether trying again can help.
const (
	exitConfig      = 10 // the configuration cannot be used
	exitListen      = 11 // an address cannot be listened on
	exitDataDir     = 12 // the data directory cannot be used
	exitLocked      = 13 // another broker has the data directory
	exitNewerFormat = 14 // the data directory was written by a newer version
	exitCorrupt     = 15 // stored data are damaged
	exitDiskFull    = 16 // not enough free disk space to start
	exitDiskFailed  = 17 // a write or sync failed while running: the broker stopped at once
)

func serveCommand(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "serve",
		GroupID: cli.GroupBroker,
		Short:   "Run the broker",
		Args:    cli.NoOperands,
	}
	addServe(cmd, app)
	return cmd
}

// addServe makes a command run the broker.
func addServe(cmd *cobra.Command, app *cli.App) {
	file := configFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error { return told(runServe(*file, app.Stderr)) }
}

// configFlag adds the flag that names the configuration.
func configFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("config", os.Getenv("SETTMQ_CONFIG"), "configuration `FILE` (default $SETTMQ_CONFIG); see settmq config default")
}

// told is the error for an exit code whose reason has been printed.
func told(code int) error {
	if code == cli.ExitOK {
		return nil
	}
	return cli.Told(code)
}

// runServe runs the broker until it is told to stop, and returns the exit code.
func runServe(file string, stderr io.Writer) int {
	cfg, err := config.Load(file, os.Environ())
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitConfig
	}
	debug.SetMemoryLimit(cfg.VMMemoryHighWatermark.Of(sysmem.Total()))
	log := newLogger(cfg.Log, stderr)
	if names := config.Ignored(os.Environ()); len(names) > 0 {
		log.Warn().Strs("variables", names).Msg("environment variables of RabbitMQ that have no effect here")
	}

	listeners, err := listen(cfg, log)
	if err != nil {
		fmt.Fprintf(stderr, "settmq: %v\nIs another broker running? Choose other addresses with the setting listeners.\n", err)
		return exitListen
	}
	defer closeAll(listeners)
	manage, err := listenManagement(cfg, log)
	if err != nil {
		fmt.Fprintf(stderr, "settmq: %v\nIs another broker running? Choose another address with the setting management.listen; empty switches the API off.\n", err)
		return exitListen
	}
	if manage != nil {
		defer manage.Close()
	}
	scrapes, err := listenMetrics(cfg, log)
	if err != nil {
		fmt.Fprintf(stderr, "settmq: %v\nIs another broker running? Choose another address with the setting metrics.listen; empty switches them off.\n", err)
		return exitListen
	}
	if scrapes != nil {
		defer scrapes.Close()
	}
	if address := cfg.Debug.Pprof; address != "" {
		l, err := servePprof(address, log)
		if err != nil {
			fmt.Fprintf(stderr, "settmq: cannot listen on %s for profiles: %v\nChoose another address with the setting debug.pprof.\n", address, err)
			return exitListen
		}
		defer l.Close()
	}
	failed := make(chan error, 1)
	b, err := openBroker(cfg, log, func(err error) { failed <- err })
	if err != nil {
		code, text := explain(err, cfg.DataDir)
		fmt.Fprintln(stderr, "settmq: "+text)
		return code
	}
	if cfg.LoadDefinitions != "" {
		if err := importDefinitions(b, cfg.LoadDefinitions, log); err != nil {
			fmt.Fprintf(stderr, "settmq: %v\nNothing of the file was taken over.\n", err)
			_ = b.Close()
			return exitConfig
		}
	}
	for _, name := range cfg.TraceVHosts {
		v := b.VHost(name)
		if v == nil {
			fmt.Fprintf(stderr, "settmq: trace_vhosts: there is no vhost '%s'\n", name)
			_ = b.Close()
			return exitConfig
		}
		v.SetTracing(true)
	}
	a, err := serveManagement(cfg, file, b, manage, scrapes, log)
	if err != nil {
		fmt.Fprintf(stderr, "settmq: %v\n", err)
		_ = b.Close()
		return exitListen
	}
	return serve(&reloader{file, cfg, log}, b, a, listeners, failed)
}

// serve runs until a signal or a failure of the disk.
func serve(r *reloader, b *broker.Broker, a *api, listeners []net.Listener, failed <-chan error) int {
	cfg, log := r.cfg, r.log
	signals, hangups := make(chan os.Signal, 2), make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if isTerminal(os.Stderr) {
		signal.Notify(signals, syscall.SIGHUP) // the terminal is gone, and so is whoever started this
	} else {
		signal.Notify(hangups, syscall.SIGHUP)
	}
	srv := server.New(serverOptions(cfg, b, log))
	var serving sync.WaitGroup
	for i, l := range listeners {
		serving.Go(func() {
			if err := srv.Serve(l); !errors.Is(err, server.ErrClosed) {
				log.Error().Err(err).Str("address", l.Addr().String()).Msg("listener failed")
			}
		})
		protocol := "amqp"
		if cfg.Listeners[i].TLS != nil {
			protocol = "amqp/ssl"
		}
		a.server.Listening(management.Listener{Protocol: protocol, Addr: l.Addr()})
		log.Info().Str("address", l.Addr().String()).Bool("tls", cfg.Listeners[i].TLS != nil).Msg("listening for AMQP 0-9-1")
	}
	greet(cfg, log)
	notify("READY=1")
	for stopping := false; !stopping; {
		select {
		case err := <-failed:
			// What was confirmed is on disk; nothing more may be.
			log.Error().Err(err).Str("dir", cfg.DataDir).Msg("the disk failed: stopping at once, nothing more is confirmed")
			return exitDiskFailed
		case <-hangups:
			r.reload()
		case s := <-signals:
			log.Info().Str("signal", s.String()).Msg("shutting down")
			stopping = true
		}
	}
	notify("STOPPING=1")
	a.server.Stopping()
	// A fifth of the time is left for the store.
	ctx, cancel := context.WithTimeout(context.Background(), cfg.ShutdownTimeout.Std()*4/5)
	defer cancel()
	go func() {
		<-signals
		log.Warn().Msg("second signal: not waiting for clients")
		cancel()
	}()
	srv.Shutdown(ctx)
	serving.Wait()
	a.shutdown(ctx)
	if err := b.Close(); err != nil {
		log.Error().Err(err).Msg("closing the data directory failed")
		return exitDiskFailed
	}
	log.Info().Msg("stopped")
	return cli.ExitOK
}

func greet(cfg *config.Config, log zerolog.Logger) {
	log.Info().Str("dir", cfg.DataDir).Msg("data directory")
	log.Info().Msg("durability: a persistent message is confirmed after it is on disk (fdatasync)")
	log.Info().Msg(`try: settmq sub --queue hello    and elsewhere: settmq pub --key hello "hi"`)
	log.Info().Str("version", buildVersion()).Msg("Server startup complete")
}

func newLogger(cfg config.Log, w io.Writer) zerolog.Logger {
	setLogLevel(cfg.Level)
	if cfg.Format != "json" {
		_, plain := os.LookupEnv("NO_COLOR")
		f, isFile := w.(*os.File)
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.DateTime, NoColor: plain || !isFile || !isTerminal(f)}
	}
	return zerolog.New(w).With().Timestamp().Logger()
}

func isTerminal(f *os.File) bool {
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeCharDevice != 0
}

func listen(cfg *config.Config, log zerolog.Logger) ([]net.Listener, error) {
	var list []net.Listener
	for _, l := range cfg.Listeners {
		nl, err := net.Listen("tcp", l.Address)
		if err == nil && l.TLS != nil {
			var t *tls.Config
			if t, err = server.LoadTLS(tlsFiles(l.TLS), log); err == nil {
				nl = tls.NewListener(nl, t)
			} else {
				_ = nl.Close()
			}
		}
		if err != nil {
			closeAll(list)
			return nil, fmt.Errorf("cannot listen on %s: %w", l.Address, err)
		}
		list = append(list, nl)
	}
	return list, nil
}

func closeAll(list []net.Listener) {
	for _, l := range list {
		_ = l.Close()
	}
}

func tlsFiles(t *config.TLS) server.TLSFiles {
	f := server.TLSFiles{Cert: t.Cert, Key: t.Key, CA: t.CA, VerifyPeer: t.VerifyPeer, RequirePeer: t.FailIfNoPeerCert, MinVersion: tls.VersionTLS12}
	if t.MinVersion == "1.3" {
		f.MinVersion = tls.VersionTLS13
	}
	return f
}

func storageOptions(cfg *config.Config, log zerolog.Logger) storage.Options {
	return storage.Options{
		Dir: cfg.DataDir, JournalSegment: int64(cfg.Storage.JournalSegment), JournalMax: int64(cfg.Storage.JournalMax),
		CommitBudget: int64(cfg.Storage.CommitBudget), Log: log.With().Str("component", "storage").Logger(),
	}
}

func openBroker(cfg *config.Config, log zerolog.Logger, onFailure func(error)) (*broker.Broker, error) {
	password, err := cfg.Auth.Password()
	if err != nil {
		return nil, fmt.Errorf("auth.default_pass_file: %w", err)
	}
	so := storageOptions(cfg, log)
	so.OnFailure = onFailure
	watermark := cfg.VMMemoryHighWatermark.Of(sysmem.Total())
	memory, fixed := cfg.Storage.MessageMemory.Fixed()
	if !fixed {
		memory = min(64*config.MiB, config.Size(watermark*2/5))
	}
	return broker.Open(broker.Options{
		Storage: so, Log: log.With().Str("component", "broker").Logger(),
		Node:          cfg.Node(),
		EventVHost:    cfg.EventExchange.VHost,
		LoopbackUsers: cfg.Auth.LoopbackUsers,
		First: broker.FirstRun{
			VHost: cfg.Auth.DefaultVHost, User: cfg.Auth.DefaultUser, Password: string(password), Tags: cfg.Auth.DefaultUserTags,
			Configure: cfg.Auth.DefaultPermissions.Configure, Write: cfg.Auth.DefaultPermissions.Write, Read: cfg.Auth.DefaultPermissions.Read,
		},
		Limits: broker.Limits{
			MaxVHosts: int(cfg.Limits.MaxVHosts), MaxQueuesPerVHost: int(cfg.Limits.MaxQueues),
			MaxExchangesPerVHost: int(cfg.Limits.MaxExchanges), MaxBindings: int(cfg.Limits.MaxBindings),
			MaxFailedLogins: int(cfg.Limits.MaxFailedLogins),
		},
		Interceptors: broker.Interceptors{
			Timestamp:   broker.Interceptor(cfg.MessageInterceptors.Incoming.SetHeaderTimestamp),
			RoutingNode: broker.Interceptor(cfg.MessageInterceptors.Incoming.SetHeaderRoutingNode),
		},
		DefaultQueueType: cfg.DefaultQueueType, ConsumerTimeout: cfg.ConsumerTimeout.Std(),
		MessageMemory: uint64(memory), MemoryWatermark: uint64(watermark), DiskFreeLimit: diskFreeLimit(cfg),
	})
}

// diskFreeLimit is the setting, or what suits the disk: 2 GiB, or a tenth of a small one.
func diskFreeLimit(cfg *config.Config) uint64 {
	if n, fixed := cfg.DiskFreeLimit.Fixed(); fixed {
		return uint64(n)
	}
	const usual = 2 << 30
	if size, err := storage.DiskSize(cfg.DataDir); err == nil {
		return min(usual, size/10)
	}
	return usual
}

func serverOptions(cfg *config.Config, b *broker.Broker, log zerolog.Logger) server.Options {
	return server.Options{
		Broker: b, Log: log.With().Str("component", "server").Logger(),
		Product: cfg.ServerProperties.Product, Version: cfg.ServerProperties.Version, Properties: cfg.ServerProperties.Extra,
		Heartbeat: cfg.Heartbeat.Std(), FrameMax: uint32(cfg.FrameMax), InitialFrameMax: uint32(cfg.InitialFrameMax),
		ChannelMax: uint16(cfg.ChannelMax), HandshakeTimeout: cfg.HandshakeTimeout.Std(), TLSTimeout: cfg.TLSHandshakeTimeout.Std(),
		MaxMessageSize: int(cfg.MaxMessageSize), Mechanisms: cfg.Auth.Mechanisms,
		CertificateUser: func(s *tls.ConnectionState) (string, error) {
			return auth.CertificateName(s, auth.CertificateField(cfg.Auth.SSLCertLoginFrom),
				auth.AlternativeNameType(cfg.Auth.SSLCertLoginSANType), int(cfg.Auth.SSLCertLoginSANIndex))
		},
		MaxConnections: int(cfg.Limits.MaxConnections), MaxHandshakes: int(cfg.Limits.MaxHandshakes),
		MaxHandshakesPerIP: int(cfg.Limits.MaxHandshakesPerIP), MaxConsumersPerChannel: int(cfg.Limits.MaxConsumersPerChannel),
		Outbox: int(cfg.Limits.Outbox),
	}
}

// explain turns an error of opening the data directory into an exit code and into what an
// operator needs: what, where, and what to do.
func explain(err error, dir string) (int, string) {
	var corrupt *storage.CorruptError
	switch {
	case errors.Is(err, storage.ErrLocked):
		return exitLocked, fmt.Sprintf("data directory %s is in use by another broker.\nStop that one, or choose another directory with the setting data_dir.", dir)
	case errors.Is(err, storage.ErrNewerFormat):
		return exitNewerFormat, fmt.Sprintf("data directory %s was written by a newer version of settmq (%v).\nRun that version, or start with another data_dir.", dir, err)
	case errors.As(err, &corrupt):
		return exitCorrupt, fmt.Sprintf("stored data are damaged: %v\nCopy %s away first; `settmq recover --accept-loss` then opens it without what cannot be read, and says what that is.", err, dir)
	case errors.Is(err, storage.ErrDiskFull):
		return exitDiskFull, fmt.Sprintf("%v\nFree some space on the disk of %s and start again.", err, dir)
	case errors.Is(err, os.ErrPermission):
		return exitDataDir, fmt.Sprintf("data directory %s cannot be written: %v\nGive this user the right to, or choose another directory with the setting data_dir.", dir, err)
	}
	return exitDataDir, fmt.Sprintf("data directory %s cannot be opened: %v", filepath.Clean(dir), err)
}

func recoverCommand(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "recover --accept-loss",
		GroupID: cli.GroupBroker,
		Short:   "Open a damaged data directory",
		Long:    "Drops what cannot be read from a damaged data directory and prints what that is. The broker must not run.",
		Args:    cli.NoOperands,
	}
	file := configFlag(cmd)
	accept := cmd.Flags().Bool("accept-loss", false, "really drop what cannot be read")
	cmd.RunE = func(*cobra.Command, []string) error {
		if !*accept {
			return cli.Usagef("needs --accept-loss")
		}
		return told(runRecover(*file, app.Stdout, app.Stderr))
	}
	return cmd
}

// runRecover opens a damaged data directory without what cannot be read, and returns the exit code.
func runRecover(file string, stdout, stderr io.Writer) int {
	cfg, err := config.Load(file, os.Environ())
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitConfig
	}
	o := storageOptions(cfg, newLogger(cfg.Log, stderr))
	o.AcceptLoss = true
	losses := 0
	o.OnLoss = func(l storage.Loss) {
		losses++
		fmt.Fprintf(stdout, "lost: %s: %s", l.Where, l.What)
		if l.Queue != 0 {
			fmt.Fprintf(stdout, " (queue id %d, %d messages)", l.Queue, l.Count)
		}
		fmt.Fprintln(stdout)
	}
	s, err := storage.Open(o)
	if err == nil {
		err = errors.Join(broker.RecoverStreams(o), s.Close())
	}
	if err != nil {
		code, text := explain(err, cfg.DataDir)
		fmt.Fprintln(stderr, "settmq: "+text)
		return code
	}
	fmt.Fprintf(stdout, "%s opens; %d losses\n", cfg.DataDir, losses)
	return cli.ExitOK
}
