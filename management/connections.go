package management

import (
	"slices"
	"time"

	"github.com/settmq/settmq/broker"
)

var connectionColumns = map[string]func(broker.Connection) any{
	"name":         func(c broker.Connection) any { return c.About().Name },
	"user":         func(c broker.Connection) any { return c.About().User },
	"vhost":        func(c broker.Connection) any { return c.About().VHost },
	"connected_at": func(c broker.Connection) any { return c.About().ConnectedAt.UnixMilli() },
	"channels":     func(c broker.Connection) any { return c.Info().Channels },
}

// connectionRow is a connection. What is not known of a plain one is nothing: null, or "" as RabbitMQ says it of one alone.
func (r *request) connectionRow(nothing any) func(broker.Connection) object {
	return func(c broker.Connection) object {
		a, i := c.About(), c.Info()
		known := func(s string) any {
			if s == "" {
				return nothing
			}
			return s
		}
		tls := a.TLS
		if tls == nil {
			tls = &broker.ConnectionTLS{}
		}
		o := object{
			{"auth_mechanism", a.Mechanism},
			{"channel_max", int(a.ChannelMax)},
			{"client_properties", a.ClientProperties},
			{"connected_at", a.ConnectedAt.UnixMilli()},
			{"frame_max", int(a.FrameMax)},
			{"host", a.Host},
			{"name", a.Name},
			{"node", r.broker.Node()},
			{"peer_cert_issuer", known(tls.PeerIssuer)},
			{"peer_cert_serial_number", known(tls.PeerSerial)},
			{"peer_cert_subject", known(tls.PeerSubject)},
			{"peer_cert_validity", known(tls.PeerValidity)},
			{"peer_host", a.PeerHost},
			{"peer_port", a.PeerPort},
			{"port", a.Port},
			{"protocol", a.Protocol},
			{"ssl", a.TLS != nil},
			{"ssl_cipher", known(tls.Cipher)},
			{"ssl_hash", known(tls.Hash)},
			{"ssl_key_exchange", known(tls.KeyExchange)},
			{"ssl_protocol", known(tls.Protocol)},
			{"timeout", int(i.Heartbeat / time.Second)},
			{"type", "network"},
			{"user", a.User},
			{"user_provided_name", a.ProvidedName},
			{"user_who_performed_action", a.User},
			{"vhost", a.VHost},
		}
		if r.query.Get("disable_stats") == "true" {
			return o
		}
		w := r.window("data_rates")
		s := r.broker.ConnectionSeries(c, w.asked())
		o = append(o, traffic(broker.TrafficSample{ReceivedBytes: i.ReceivedBytes, SentBytes: i.SentBytes}, &s, w,
			func(t *broker.TrafficSample) *broker.TrafficSample { return t })...)
		return append(o, object{
			{"channels", i.Channels},
			{"recv_cnt", i.Reads},
			{"send_cnt", i.Writes},
			{"send_pend", i.Waiting},
			{"state", i.State.String()},
			{"reductions", 0},
			{"reductions_details", noRate},
		}...)
	}
}

// listedConnections are those that the user may see: everybody's for monitors.
func (r *request) listedConnections() []broker.Connection {
	return slices.DeleteFunc(r.broker.Connections(), func(c broker.Connection) bool {
		a := c.About()
		return r.vhost != nil && a.VHost != r.vhost.Name() || !isMonitor(r.user) && a.User != r.userName()
	})
}

func listConnections(r *request) (any, error) {
	return listOf(r.listedConnections(), connectionColumns, r.connectionRow(nil)), nil
}

// listConnectionsOf lists the connections of one user, which says little of each, as in RabbitMQ.
func listConnectionsOf(r *request) (any, error) {
	if err := r.mayTouch(r.param("user")); err != nil {
		return nil, err
	}
	of := slices.DeleteFunc(r.listedConnections(), func(c broker.Connection) bool { return c.About().User != r.param("user") })
	return listOf(of, connectionColumns, func(c broker.Connection) object {
		a := c.About()
		return object{{"name", a.Name}, {"vhost", a.VHost}, {"user", a.User}, {"node", r.broker.Node()}}
	}), nil
}

// namedConnection is the connection of the path, if it is the user's to see, or to close.
func (r *request) namedConnection() (broker.Connection, error) {
	c := r.broker.Connection(r.param("connection"))
	if c == nil {
		return nil, errNotFound
	}
	return c, r.mayTouch(c.About().User)
}

func getConnection(r *request) (any, error) {
	c, err := r.namedConnection()
	if err != nil {
		return nil, err
	}
	return r.connectionRow("")(c), nil
}

// closeReason is what the client is told.
func (r *request) closeReason() string {
	if reason := r.Header.Get("X-Reason"); reason != "" {
		return reason
	}
	return broker.ClosedByOperator
}

func closeConnection(r *request) (any, error) {
	c, err := r.namedConnection()
	if err != nil {
		return nil, err
	}
	c.Close(r.closeReason())
	return noContent, nil
}

func closeConnectionsOf(r *request) (any, error) {
	user := r.param("user")
	if err := r.mayTouch(user); err != nil {
		return nil, err
	}
	r.broker.CloseConnections(r.closeReason(), func(a *broker.ConnectionAbout) bool { return a.User == user })
	return noContent, nil
}
