package broker

import (
	"errors"
	"fmt"

	"github.com/settmq/settmq/amqp"
	"github.com/settmq/settmq/queue"
	"github.com/settmq/settmq/storage"
)

// ErrProtected is returned by DeleteVHost for a vhost that is protected from it.
var ErrProtected = errors.New("protected from deletion")

// DeleteVHost removes a vhost with everything in it and what users may do there, and closes its connections. It
// returns when that is on disk: ErrNoSuch if there is no such vhost, ErrProtected if its metadata forbid it.
func (b *Broker) DeleteVHost(name string) error {
	b.mu.Lock()
	v := b.vhosts[name]
	if v == nil {
		b.mu.Unlock()
		return ErrNoSuch
	}
	v.mu.Lock()
	if v.metadata.ProtectedFromDeletion {
		v.mu.Unlock()
		b.mu.Unlock()
		return ErrProtected
	}
	delete(b.vhosts, name)
	var c storage.Change
	queues := v.emptyLocked(&c)
	b.vhostGoneLocked(v)
	c.Delete = append(c.Delete, metaKey(keyVHost, name))
	v.gone = true
	b.Event("vhost.deleted", textField("name", name))
	ticket := b.users.begin([]usersChange{b.users.leaveVHost(name)}, c)
	v.mu.Unlock()
	b.mu.Unlock()
	for _, q := range queues {
		cancelled(q.consumers)
	}
	b.CloseConnections(fmt.Sprintf("vhost '%s' is deleted", name), func(a *ConnectionAbout) bool { return a.VHost == name })
	if err := ticket.Wait(); err != nil {
		return err
	}
	for _, q := range queues {
		v.removeFiles(q.queue)
	}
	return nil
}

// emptied is a queue that went with its vhost.
type emptied struct {
	queue     Queue
	consumers []*queue.Consumer
}

// emptyLocked takes everything out of the vhost and adds what lasted to c.
func (v *VHost) emptyLocked(c *storage.Change) (queues []emptied) {
	for _, q := range v.queues {
		_, consumers, err := q.Delete(false, false)
		if err == nil {
			queues = append(queues, emptied{q, consumers})
			v.removeQueueLocked(q, c)
		}
	}
	for _, x := range v.exchanges {
		v.removeExchangeLocked(x, c)
	}
	for kind, list := range v.policies.kinds {
		for _, p := range list {
			c.Delete = append(c.Delete, metaKey(policyKinds[kind].key, v.name, p.Name))
		}
	}
	v.policies = &policySet{}
	for id := range v.parameters {
		c.Delete = append(c.Delete, metaKey(keyParameter, v.name, id.component, id.name))
	}
	clear(v.parameters)
	if len(v.limits) > 0 {
		c.Delete = append(c.Delete, metaKey(keyVHostLimits, v.name))
	}
	return queues
}

// notGone refuses to make anything in a vhost that was deleted, for whoever has it still.
func (v *VHost) notGone() *amqp.Error {
	if v.gone {
		return amqp.NotFound("no vhost '%s'", v.name)
	}
	return nil
}

// CloseConnections has all connections closed that which wants, with connection.close 320 and this reason. It returns
// their number at once.
func (b *Broker) CloseConnections(reason string, which func(*ConnectionAbout) bool) (n int) {
	for _, c := range b.Connections() {
		if which(c.About()) {
			c.Close(reason)
			n++
		}
	}
	return n
}

// leaveVHost takes away what users may do in a vhost.
func (u *Users) leaveVHost(vhost string) usersChange {
	return usersChange{commit: func(all *storage.Change) {
		for g := range u.permissions {
			if g.vhost == vhost {
				all.Delete = append(all.Delete, metaKey(keyPermission, g.user, g.vhost))
				delete(u.permissions, g)
			}
		}
		for g, topics := range u.topics {
			if g.vhost != vhost {
				continue
			}
			for _, t := range topics {
				all.Delete = append(all.Delete, metaKey(keyTopicPermission, g.user, g.vhost, t.Exchange))
			}
			delete(u.topics, g)
		}
	}}
}
