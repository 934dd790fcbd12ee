package events

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// wakeSubject carries empty messages: look at the log. Markets that share a NATS
	// wake each other up for nothing, which costs a query.
	wakeSubject = "agentmarket.events"
	// reconnectWait is how long a lost NATS is left alone before the next try.
	reconnectWait = 500 * time.Millisecond
	// pingInterval finds out that a silent NATS is gone, after three of them.
	pingInterval = 2 * time.Second
)

// ConnectNATS has replicas wake each other up over NATS rather than through the
// database, and returns what ends it. A server that cannot be reached is tried
// again for ever, and until then the database is used. An address that makes no
// sense is an error. It is called before Follow.
func (l *Log) ConnectNATS(url string) (stop func(), err error) {
	conn, err := nats.Connect(url, nats.Name("AgentMarket"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait), nats.ReconnectBufSize(-1),
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(2),
		nats.ConnectHandler(func(*nats.Conn) { l.logger.Info("connected to NATS") }),
		nats.ReconnectHandler(func(*nats.Conn) {
			l.logger.Info("connected to NATS again")
			l.Wake()
		}),
		nats.DisconnectErrHandler(func(conn *nats.Conn, err error) {
			if !conn.IsClosed() {
				l.logger.Warn("lost NATS; replicas wake each other up through the database", slog.Any("error", err))
			}
		}))
	if err != nil {
		return nil, err
	}
	if !conn.IsConnected() {
		l.logger.Warn("NATS cannot be reached yet; replicas wake each other up through the database")
	}
	if _, err := conn.Subscribe(wakeSubject, func(*nats.Msg) { l.Wake() }); err != nil {
		conn.Close()
		return nil, errors.Join(errors.New("listen on NATS"), err)
	}
	l.natsConn = conn
	return conn.Close, nil
}

// natsConnected reports whether other replicas are to be woken over NATS.
func (l *Log) natsConnected() bool { return l.natsConn != nil && l.natsConn.IsConnected() }

// numberEvents has new events given their cursors. The other replicas are told over
// NATS, or by the database when there is none.
func (l *Log) numberEvents(ctx context.Context) error {
	byBus := l.natsConnected()
	numbered, err := l.db.AssignCursors(ctx, !byBus)
	if err != nil || !numbered || !byBus {
		return err
	}
	if err := l.natsConn.Publish(wakeSubject, nil); err != nil { // they look every second
		l.logger.WarnContext(ctx, "cannot wake the other replicas over NATS", slog.Any("error", err))
	}
	return nil
}
