package management

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/settmq/settmq/broker"
)

func parameterRow(p broker.Parameter) object {
	return object{{"value", p.Value}, {"vhost", p.VHost}, {"component", p.Component}, {"name", p.Name}}
}

func listParameters(r *request) (any, error) {
	var items []object
	for _, v := range r.listedVHosts() {
		for _, p := range v.Parameters(r.param("component")) {
			items = append(items, parameterRow(p))
		}
	}
	return rows(items).sortedBy("vhost", "component", "name").unpaged(), nil
}

func getParameter(r *request) (any, error) {
	for _, p := range r.vhost.Parameters(r.param("component")) {
		if p.Name == r.param("name") {
			return parameterRow(p), nil
		}
	}
	return nil, errNotFound
}

func putParameter(r *request) (any, error) {
	o, err := r.decode("value")
	if err != nil {
		return nil, err
	}
	created, err := r.vhost.SetParameter(r.param("component"), r.param("name"), o["value"])
	return put(created), err
}

func deleteParameter(r *request) (any, error) {
	return noContent, r.vhost.ClearParameter(r.param("component"), r.param("name"))
}

func globalRow(name string, value json.RawMessage) object {
	return object{{"value", value}, {"name", name}}
}

func listGlobals(r *request) (any, error) {
	globals := r.broker.GlobalParameters()
	var items []object
	for _, name := range slices.Sorted(maps.Keys(globals)) {
		items = append(items, globalRow(name, globals[name]))
	}
	return rows(items).sortedBy("name").unpaged(), nil
}

func getGlobal(r *request) (any, error) {
	value, ok := r.broker.GlobalParameters()[r.param("name")]
	if !ok {
		return nil, errNotFound
	}
	return globalRow(r.param("name"), value), nil
}

func putGlobal(r *request) (any, error) {
	o, err := r.decode("value")
	if err != nil {
		return nil, err
	}
	created, err := r.broker.SetGlobalParameter(r.param("name"), o["value"])
	return put(created), err
}

func deleteGlobal(r *request) (any, error) {
	return noContent, r.broker.ClearGlobalParameter(r.param("name"))
}

// clusterName is what the broker calls itself: the global parameter, or the name of the node.
func (r *request) clusterName() string {
	if name := r.broker.ClusterName(); name != "" {
		return name
	}
	return r.broker.Node()
}

func getClusterName(r *request) (any, error) { return object{{"name", r.clusterName()}}, nil }

func putClusterName(r *request) (any, error) {
	o, err := r.decode("name")
	if err != nil {
		return nil, err
	}
	name, err := o.text("name", "")
	if err != nil {
		return nil, err
	}
	value, err := json.Marshal(name)
	if err != nil {
		return nil, err
	}
	_, err = r.broker.SetGlobalParameter("cluster_name", value)
	return noContent, err
}
