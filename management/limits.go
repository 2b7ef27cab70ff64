package management

import (
	"maps"
	"slices"

	"github.com/settmq/settmq/broker"
)

// limitRows lists the limits of those that have any.
func limitRows(of string, limits map[string]map[string]int64) *list {
	var items []object
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		if len(limits[name]) > 0 {
			items = append(items, object{{of, name}, {"value", limitsObject(limits[name])}})
		}
	}
	return rows(items).sortedBy(of).unpaged()
}

func listVHostLimits(r *request) (any, error) {
	limits := make(map[string]map[string]int64)
	for _, v := range r.listedVHosts() {
		limits[v.Name()] = v.Limits()
	}
	return limitRows("vhost", limits), nil
}

func putVHostLimit(r *request) (any, error) {
	o, err := r.decode("value")
	if err != nil {
		return nil, err
	}
	name := r.param("name")
	n, err := broker.ParseVHostLimit(name, o["value"])
	if err != nil {
		return nil, err
	}
	return noContent, r.vhost.SetLimit(name, n)
}

func deleteVHostLimit(r *request) (any, error) {
	return noContent, r.vhost.ClearLimit(r.param("name"))
}

func listUserLimits(r *request) (any, error) {
	return limitRows("user", r.broker.Users().AllLimits()), nil
}

func listLimitsOfUser(r *request) (any, error) {
	u, err := r.namedUser()
	if err != nil {
		return nil, err
	}
	return limitRows("user", map[string]map[string]int64{u.Name: r.broker.Users().Limits(u.Name)}), nil
}

func putUserLimit(r *request) (any, error) {
	user, name := r.param("user"), r.param("name")
	o, err := r.decode("value")
	if err != nil {
		return nil, err
	}
	if r.broker.Users().User(user) == nil {
		return nil, badRequest([]any{"no_such_user", user})
	}
	n, err := broker.ParseUserLimit(name, o["value"])
	if err != nil {
		return nil, err
	}
	return noContent, r.broker.Users().SetLimit(user, name, n)
}

func deleteUserLimit(r *request) (any, error) {
	u, err := r.namedUser()
	if err != nil {
		return nil, err
	}
	return noContent, r.broker.Users().ClearLimit(u.Name, r.param("name"))
}
