package events

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// wakeSubject carries empty messages. A message means that the log has new events.
	// Marketplaces that share a NATS server also wake each other, at the cost of one
	// query.
	wakeSubject = "agentmarket.events"
	// reconnectWait is the time between two attempts to reconnect.
	reconnectWait = 500 * time.Millisecond
	// pingInterval is the time between two pings. The connection is closed after two
	// pings without a reply.
	pingInterval = 2 * time.Second
)

// ConnectNATS makes replicas wake each other through NATS instead of the database.
// The returned function closes the connection. While NATS is unreachable, the log
// keeps reconnecting and uses the database. An invalid URL is an error. Call
// ConnectNATS before Follow.
func (l *Log) ConnectNATS(url string) (stop func(), err error) {
	conn, err := nats.Connect(url, nats.Name("AgentMarket"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait), nats.ReconnectBufSize(-1),
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(2),
		nats.ConnectHandler(func(*nats.Conn) { l.logger.Info("connected to NATS") }),
		nats.ReconnectHandler(func(*nats.Conn) {
			l.logger.Info("reconnected to NATS")
			l.Wake()
		}),
		nats.DisconnectErrHandler(func(conn *nats.Conn, err error) {
			if !conn.IsClosed() {
				l.logger.Warn("disconnected from NATS; replicas use database notifications", slog.Any("error", err))
			}
		}))
	if err != nil {
		return nil, err
	}
	if !conn.IsConnected() {
		l.logger.Warn("NATS is unreachable; replicas use database notifications")
	}
	if _, err := conn.Subscribe(wakeSubject, func(*nats.Msg) { l.Wake() }); err != nil {
		conn.Close()
		return nil, fmt.Errorf("subscribe to NATS: %w", err)
	}
	l.natsConn = conn
	return conn.Close, nil
}

// natsConnected reports whether other replicas can be woken through NATS.
func (l *Log) natsConnected() bool { return l.natsConn != nil && l.natsConn.IsConnected() }
