package management

import (
	"encoding/json"

	"github.com/settmq/settmq/broker"
)

func policyRow(vhost string, p *broker.Policy) object {
	return object{
		{"vhost", vhost},
		{"name", p.Name},
		{"pattern", p.Pattern},
		{"apply-to", p.ApplyTo},
		{"definition", p.Definition},
		{"priority", p.Priority},
	}
}

// The resources of both kinds of policies are the same.

func listPolicies(kind broker.PolicyKind) handler {
	return func(r *request) (any, error) {
		var items []object
		for _, v := range r.listedVHosts() {
			for _, p := range v.Policies(kind) {
				items = append(items, policyRow(v.Name(), p))
			}
		}
		return rows(items).unpaged(), nil
	}
}

func getPolicy(kind broker.PolicyKind) handler {
	return func(r *request) (any, error) {
		p := r.vhost.Policy(kind, r.param("name"))
		if p == nil {
			return nil, errNotFound
		}
		return policyRow(r.vhost.Name(), p), nil
	}
}

func putPolicy(kind broker.PolicyKind) handler {
	return func(r *request) (any, error) {
		o, err := r.decode("pattern", "definition")
		if err != nil {
			return nil, err
		}
		object, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		p, err := broker.ParsePolicy(kind, r.param("name"), object)
		if err != nil {
			return nil, err
		}
		created, err := r.vhost.SetPolicy(kind, p)
		return put(created), err
	}
}

func deletePolicy(kind broker.PolicyKind) handler {
	return func(r *request) (any, error) {
		return noContent, r.vhost.ClearPolicy(kind, r.param("name"))
	}
}
