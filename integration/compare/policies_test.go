package compare

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// The policies of a conversation, by their names behind its prefix.
var policyNames = []string{"p", "q"}

// policy sets or clears a policy. Both brokers need their management API for that.
func (k *talk) policy() {
	name, kind := pick(k.rand, policyNames...), pick(k.rand, "policies", "policies", "operator-policies")
	if k.rand.IntN(3) == 0 {
		k.say("clear %s %s: %s", kind, name, k.manage(http.MethodDelete, kind, name, nil))
	} else {
		p := k.policyObject(kind, name)
		k.say("set %s %s %v: %s", kind, name, p, k.manage(http.MethodPut, kind, name, p))
	}
	time.Sleep(2 * settle) // RabbitMQ tells its queues one after another
	k.observe()
}

func (k *talk) policyObject(kind, name string) map[string]any {
	r := k.rand
	definition := map[string]any{}
	some := func(n int, key string, values ...any) {
		if r.IntN(n) == 0 {
			definition[key] = pick(r, values...)
		}
	}
	some(3, "max-length", 0, 1, 2, 5)
	some(5, "message-ttl", 100000, 30000, -1) // RabbitMQ leaves what expires behind what does not
	some(12, "expires", 600000, 0)
	if !*quorum { // where RabbitMQ counts headers too
		some(6, "max-length-bytes", 0, 10, 20, "x")
	}
	some(12, "overflow", "drop-head") // "reject-publish" is a known difference
	if kind == "policies" {
		some(3, "dead-letter-exchange", "", k.prefix+"x", k.prefix+"y")
		some(5, "dead-letter-routing-key", "k", k.queue())
		some(5, "alternate-exchange", k.prefix+"x", "amq.fanout")
	}
	some(20, "unknown", 1)
	pattern := pick(r, "[ab]$", "[a-d]$", "[xyz]$", "")
	priority := 2 * r.IntN(2) // that of two equal ones goes first which hashes lower, in RabbitMQ
	if name == "q" {
		priority++
	}
	return map[string]any{
		"pattern": "^" + k.prefix + pattern, "definition": definition, "priority": priority,
		"apply-to": pick(r, "queues", "queues", "all", "exchanges", "classic_queues", "nothing"),
	}
}

// manage is a request for a policy; the answer is its status and, of a refusal, the reason.
func (k *talk) manage(method, kind, name string, object any) string {
	body, err := json.Marshal(object)
	if err != nil {
		return err.Error()
	}
	req, err := http.NewRequest(method, k.broker.management+"/api/"+kind+"/%2F/"+url.PathEscape(k.prefix+name), bytes.NewReader(body))
	if err != nil {
		return err.Error()
	}
	req.SetBasicAuth("guest", "guest")
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return fmt.Sprint(resp.StatusCode, " ", string(text))
}

func (k *talk) clearPolicies() {
	for _, kind := range []string{"policies", "operator-policies"} {
		for _, name := range policyNames {
			k.manage(http.MethodDelete, kind, name, nil)
		}
	}
}
