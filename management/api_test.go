package management

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/settmq/settmq/broker"
)

// names are those of a list.
func names(v any) (list []string) {
	for _, item := range v.([]any) {
		list = append(list, item.(map[string]any)["name"].(string))
	}
	return list
}

// got are the payloads that a get with this mode answers with, and which of them say redelivered.
func (a *api) got(vhost, queue, mode string, count int) (payloads []string, redelivered []bool) {
	a.t.Helper()
	answer := a.do("POST", "/api/queues/"+vhost+"/"+queue+"/get", fmt.Sprintf(`{"count":%d,"ackmode":%q,"encoding":"auto"}`, count, mode), http.StatusOK)
	var list []struct {
		Payload     string
		Redelivered bool
	}
	if err := json.Unmarshal([]byte(answer), &list); err != nil {
		a.t.Fatal(err)
	}
	for _, m := range list {
		payloads, redelivered = append(payloads, m.Payload), append(redelivered, m.Redelivered)
	}
	return payloads, redelivered
}

func TestGetKeepsTheOrderAndPeekEverything(t *testing.T) {
	a := newAPI(t)
	a.vhost("get")
	a.put("/api/queues/get/q", `{"durable":true}`)
	var want []string
	for i := range 5 {
		want = append(want, fmt.Sprint(i))
		a.do("POST", "/api/exchanges/get/amq.default/publish", fmt.Sprintf(`{"properties":{"delivery_mode":2},"routing_key":"q","payload":"%d","payload_encoding":"string"}`, i), http.StatusOK)
	}
	none, all := make([]bool, 5), []bool{true, true, true, true, true}
	if a.broker != nil { // ours alone
		for range 2 {
			if payloads, redelivered := a.got("get", "q", peek, 10); !slices.Equal(payloads, want) || !slices.Equal(redelivered, none) {
				t.Errorf("peek shows %v %v", payloads, redelivered)
			}
		}
	}
	if payloads, redelivered := a.got("get", "q", ackRequeue, 10); !slices.Equal(payloads, want) || !slices.Equal(redelivered, none) {
		t.Errorf("get shows %v %v", payloads, redelivered)
	}
	if payloads, redelivered := a.got("get", "q", rejectRequeue, 10); !slices.Equal(payloads, want) || !slices.Equal(redelivered, all) {
		t.Errorf("get after a requeue shows %v %v", payloads, redelivered)
	}
	if payloads, _ := a.got("get", "q", ack, 2); !slices.Equal(payloads, want[:2]) {
		t.Errorf("get of two shows %v", payloads)
	}
	if payloads, _ := a.got("get", "q", reject, -1); !slices.Equal(payloads, want[2:]) {
		t.Errorf("get of the rest shows %v", payloads)
	}
	if payloads, _ := a.got("get", "q", ack, 1); len(payloads) != 0 {
		t.Errorf("the empty queue has %v", payloads)
	}
}

// What an export says comes back as it was, through a broker that had nothing.
func TestDefinitionsGoAround(t *testing.T) {
	a := newAPI(t)
	a.vhost("around")
	a.user("around-user", "monitoring,x", "around")
	for path, body := range map[string]string{
		"/api/vhosts/around":                        `{"description":"d","tags":"a,b","default_queue_type":"quorum"}`,
		"/api/queues/around/q":                      `{"durable":true,"arguments":{"x-queue-type":"classic","x-message-ttl":60000,"x-dead-letter-exchange":""}}`,
		"/api/queues/around/s":                      `{"durable":true,"arguments":{"x-queue-type":"stream","x-max-age":"1h"}}`,
		"/api/exchanges/around/x":                   `{"type":"topic","durable":true,"arguments":{"alternate-exchange":"amq.fanout"}}`,
		"/api/policies/around/p":                    `{"pattern":"^q","definition":{"max-length":10},"priority":2,"apply-to":"queues"}`,
		"/api/operator-policies/around/o":           `{"pattern":"^q","definition":{"max-length":7},"apply-to":"queues"}`,
		"/api/vhost-limits/around/max-queues":       `{"value":30}`,
		"/api/user-limits/around-user/max-channels": `{"value":99}`,
		"/api/topic-permissions/around/around-user": `{"exchange":"amq.topic","write":"^a","read":"^b"}`,
		"/api/global-parameters/around":             `{"value":{"a":[1,"b",null,1.5]}}`,
	} {
		a.put(path, body)
	}
	t.Cleanup(func() { a.as("guest", "DELETE", "/api/global-parameters/around", "") })
	a.do("POST", "/api/bindings/around/e/x/q/q", `{"routing_key":"a.#","arguments":{"n":1,"t":{"l":[true,"x"]}}}`, http.StatusCreated)
	whole := a.do("GET", "/api/definitions", "", http.StatusOK)
	one := a.do("GET", "/api/definitions/around", "", http.StatusOK)

	b := newOwnAPI(t)
	b.do("POST", "/api/definitions", whole, http.StatusNoContent)
	b.do("POST", "/api/definitions", whole, http.StatusNoContent) // once more changes nothing
	for _, section := range []string{"users", "vhosts", "permissions", "topic_permissions", "exchanges", "queues", "bindings", "policies", "parameters", "global_parameters"} {
		if missing := lacks(t, section, whole, b.do("GET", "/api/definitions", "", http.StatusOK)); len(missing) > 0 {
			t.Errorf("%s: %s was lost", section, missing)
		}
	}
	c := newOwnAPI(t)
	c.put("/api/vhosts/other", "")
	c.do("POST", "/api/definitions/other", one, http.StatusNoContent)
	for _, section := range []string{"exchanges", "queues", "bindings", "policies", "parameters"} {
		if missing := lacks(t, section, one, c.do("GET", "/api/definitions/other", "", http.StatusOK)); len(missing) > 0 {
			t.Errorf("%s: %s was lost", section, missing)
		}
	}
}

// lacks are the entries of a section that a file has and another has not.
func lacks(t *testing.T, section, have, other string) (missing []string) {
	t.Helper()
	entries := func(text string) map[string]bool {
		var file map[string]json.RawMessage
		var list []map[string]any
		if err := json.Unmarshal([]byte(text), &file); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(file[section], &list); err != nil {
			t.Fatalf("%s: %v", section, err)
		}
		set := make(map[string]bool)
		for _, e := range list {
			delete(e, "internal") // RabbitMQ does not say
			delete(e, "tracing")
			if m, ok := e["metadata"].(map[string]any); ok {
				delete(m, "protected_from_deletion")
			}
			b, err := json.Marshal(e) // with sorted keys
			if err != nil {
				t.Fatal(err)
			}
			set[string(b)] = true
		}
		return set
	}
	in := entries(other)
	for e := range entries(have) {
		// guest and / are there before: they are what the new broker made them.
		if !in[e] && !strings.Contains(e, `"name":"guest"`) && !strings.Contains(e, `"name":"/"`) && !strings.Contains(e, "internal_cluster_id") {
			missing = append(missing, e)
		}
	}
	return missing
}

func TestUploadedFormsAreDefinitionsToo(t *testing.T) {
	a := newAPI(t)
	a.vhost("form")
	body := "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"d.json\"\r\nContent-Type: application/json\r\n\r\n" +
		`{"queues":[{"name":"q","vhost":"form","durable":true,"auto_delete":false,"arguments":{}}]}` + "\r\n--b--\r\n"
	r := a.request("guest", "POST", "/api/definitions", body)
	r.Header.Set("Content-Type", "multipart/form-data; boundary=b")
	if w, answer := a.send(r); w.StatusCode != http.StatusNoContent {
		t.Fatalf("%d %s", w.StatusCode, answer)
	}
	a.do("GET", "/api/queues/form/q", "", http.StatusOK)
}

// Lists show what their reader may see, and nothing else.
func TestListsShowWhatTheUserMaySee(t *testing.T) {
	a := newAPI(t)
	a.vhost("seen")
	a.vhost("unseen")
	a.user("see-insider", "management", "seen")
	a.user("see-monitor", "monitoring", "seen")
	for _, v := range []string{"seen", "unseen"} {
		a.put("/api/queues/"+v+"/"+v+"-queue", `{"durable":true}`)
		a.put("/api/exchanges/"+v+"/"+v+"-exchange", `{"type":"fanout","durable":true}`)
		a.put("/api/policies/"+v+"/"+v+"-policy", `{"pattern":"none","definition":{"max-length":1}}`)
	}
	for _, c := range []struct {
		user, path string
		sees       bool // what is in a vhost that the user may not enter
	}{
		{"see-insider", "/api/queues", false},
		{"see-insider", "/api/exchanges", false},
		{"see-insider", "/api/bindings", false},
		{"see-insider", "/api/policies", false},
		{"see-insider", "/api/vhosts", false},
		{"see-monitor", "/api/queues", false},
		{"see-monitor", "/api/vhosts", true},
		{"guest", "/api/queues", true},
		{"guest", "/api/vhosts", true},
	} {
		status, answer := a.as(c.user, "GET", c.path, "")
		if status != http.StatusOK || !strings.Contains(answer, "seen") || strings.Contains(answer, `unseen`) != c.sees {
			t.Errorf("%s as %s: %d %s", c.path, c.user, status, answer)
		}
	}
}

// A page costs what its rows cost, and a whole list of very many queues is quick too.
func TestPagesOfManyQueuesAreQuick(t *testing.T) {
	a := newOwnAPI(t)
	v := a.broker.VHost("/")
	const many = 10_000
	for i := range many {
		if _, refused := v.DeclareQueue(broker.System{}, broker.QueueDeclare{Name: fmt.Sprintf("queue-%05d", i)}); refused != nil {
			t.Fatal(refused)
		}
	}
	for _, path := range []string{
		"/api/queues?page=1&page_size=100", "/api/queues?page=100&page_size=100&sort=messages&sort_reverse=true",
		"/api/queues?page=1&name=00.*9$&use_regex=true", "/api/queues?page=1&page_size=500&columns=name,messages&sort=memory", "/api/bindings?page=7", "/api/overview",
	} {
		best := time.Hour
		for range 5 {
			start := time.Now()
			a.do("GET", path, "", http.StatusOK)
			best = min(best, time.Since(start))
		}
		t.Logf("%-80s %v", path, best)
		if best > time.Second { // 100 ms on a machine that has time
			t.Errorf("%s took %v", path, best)
		}
	}
	page := a.get("/api/queues?page=3&page_size=2").(map[string]any)
	if got := names(page["items"]); !slices.Equal(got, []string{"queue-00004", "queue-00005"}) || page["total_count"] != float64(many) {
		t.Errorf("the page has %v of %v", got, page["total_count"])
	}
}

// TestRefusalsOfBodies: the answers are RabbitMQ's, word for word.
func TestRefusalsOfBodies(t *testing.T) {
	a := newOwnAPI(t)
	for _, c := range []struct{ method, path, body, reason string }{
		{"PUT", "/api/queues/%2F/q", `{"durable":null}`, `["not_boolean",null]`},
		{"PUT", "/api/queues/%2F/q", `{"durable":1}`, `["not_boolean",1]`},
		{"PUT", "/api/topic-permissions/%2F/guest", `{"exchange":"none","write":"","read":""}`, `["no_such_exchange","none"]`},
		{"POST", "/api/exchanges/%2F/amq.topic/publish", `{"payload":""}`, `"[{key_missing,routing_key},\n {key_missing,properties},\n {key_missing,payload_encoding}]"`},
	} {
		want := `{"error":"bad_request","reason":` + c.reason + "}"
		if got := a.do(c.method, c.path, c.body, http.StatusBadRequest); got != want {
			t.Errorf("%s %s: %s: %s", c.method, c.path, c.body, got)
		}
	}
}
