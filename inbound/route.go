package inbound

import (
	"context"

	"github.com/postroom/postroom/accounts"
	"github.com/postroom/postroom/internal/addr"
	"github.com/postroom/postroom/internal/wire"
	"github.com/postroom/postroom/mailbox"
)

// Judge says where mail for an address goes and what RCPT answers to it, for a letter of the announced size, 0 when none
// was announced. `postroom resolve` asks it, too, so that both always agree.
func Judge(ctx context.Context, a *accounts.Service, m *mailbox.Store, to addr.Path, announced int64) (accounts.Route, wire.Reply, error) {
	route, err := a.Resolve(ctx, to)
	if err != nil {
		return route, wire.Reply{}, err
	}
	for _, target := range route.Targets {
		if target.Quota == 0 {
			continue
		}
		_, used, err := m.Usage(ctx, target.AccountID)
		if err != nil {
			return route, wire.Reply{}, err
		}
		if !target.HasRoom(used, announced) {
			return route, replyMailboxFull, nil
		}
	}
	return route, RouteReply(route.Kind), nil
}

// RouteReply is what RCPT answers to an address with this route when its mailboxes have room, and what `postroom resolve`
// prints.
func RouteReply(kind accounts.RouteKind) wire.Reply {
	switch kind {
	case accounts.Deliver:
		return replyDeliver
	case accounts.UnknownUser:
		return replyNoSuchUser
	case accounts.NotOurs:
		return replyNoRelay
	case accounts.Routing:
		return replyNoRouting
	}
	return replyNobodyYet // and anything unclear is temporary
}
