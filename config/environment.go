package config

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// envPrefix begins the variables of the settings. The rest of a name is the key's path in capitals, with
// underscores for dots: SETTMQ_LOG_LEVEL is log.level.
const envPrefix = "SETTMQ_"

// Variables with the prefix that are no settings: what the command line and the tests go by.
var otherVariables = []string{
	"SETTMQ_CONFIG", "SETTMQ_URL", "SETTMQ_USER", "SETTMQ_PASSWORD", "SETTMQ_SOCKET", "SETTMQ_CONTEXT",
	"SETTMQ_BINARY", "SETTMQ_BUILD_FLAGS", "SETTMQ_HUGE",
}

// What Kubernetes puts into every container for a service that is called settmq, or settmq-something.
var serviceLink = regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$`)

// The variables of RabbitMQ's images that name the first user, and the settings that they are. A variable of
// our own for the same setting wins.
var rabbitVariables = []struct{ name, path string }{
	{"RABBITMQ_DEFAULT_USER", "auth.default_user"},
	{"RABBITMQ_DEFAULT_PASS", "auth.default_pass"},
	{"RABBITMQ_DEFAULT_VHOST", "auth.default_vhost"},
	{"RABBITMQ_NODENAME", "node_name"},
}

// Variable is an environment variable and the setting that it is.
type Variable struct {
	Name    string // SETTMQ_LOG_LEVEL
	Path    string // log.level
	Default string // as a config file spells it; "" is nothing
}

// Variables lists the variables of all settings, in the order of config.example.yaml.
func Variables() []Variable {
	var list []Variable
	defaults := reflect.ValueOf(Default()).Elem()
	for _, s := range settings() {
		v := Variable{Name: s.name, Path: s.path}
		if f, err := defaults.FieldByIndexErr(s.index); err == nil {
			v.Default = spell(f)
		}
		list = append(list, v)
	}
	return list
}

// spell is the value as an environment variable has it.
func spell(v reflect.Value) string {
	switch list := v.Interface().(type) {
	case []Listener:
		var addresses []string
		for _, l := range list {
			addresses = append(addresses, l.Address)
		}
		return strings.Join(addresses, ",")
	case []string:
		return strings.Join(list, ",")
	case map[string]string:
		return ""
	case Secret:
		return string(list) // a default is no secret
	}
	return fmt.Sprint(v.Interface())
}

// setting is a key of the file that takes one value or a list.
type setting struct {
	name, path string
	index      []int // of the field, for reflect
}

var yamlUnmarshaler = reflect.TypeFor[yaml.Unmarshaler]()

func settings() []setting {
	var list []setting
	var walk func(t reflect.Type, path string, index []int)
	walk = func(t reflect.Type, path string, index []int) {
		for i := range t.NumField() {
			field := t.Field(i)
			key, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
			if key == "" || key == "-" {
				continue
			}
			at := slices.Concat(index, []int{i})
			of := field.Type
			if of.Kind() == reflect.Pointer {
				of = of.Elem()
			}
			if of.Kind() == reflect.Struct && !reflect.PointerTo(of).Implements(yamlUnmarshaler) {
				walk(of, path+key+".", at)
				continue
			}
			list = append(list, setting{envPrefix + strings.ToUpper(strings.ReplaceAll(path+key, ".", "_")), path + key, at})
		}
	}
	walk(reflect.TypeFor[Config](), "", nil)
	return list
}

// ApplyEnvironment puts the settings that environ names ("NAME=value") on top of c. It reports how many, and
// every variable that cannot be used; one with our prefix that is no setting is an error, so that a misspelt
// password does not leave the default one in force. Empty variables count: they are the empty value.
func (c *Config) ApplyEnvironment(environ []string) (applied int, err error) {
	var errs []error
	known := settings()
	byName := map[string]setting{}
	for _, s := range known {
		byName[s.name] = s
	}
	set := func(name, value string, s setting) {
		applied++
		if err := setField(c.field(s.index), value); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", name, err))
		}
	}
	values := map[string]string{}
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok {
			values[name] = value
		}
	}
	for _, r := range rabbitVariables {
		if value := values[r.name]; value != "" {
			at := slices.IndexFunc(known, func(s setting) bool { return s.path == r.path })
			set(r.name, value, known[at])
		}
	}
	for _, entry := range environ {
		name, _, ok := strings.Cut(entry, "=")
		if !ok || !strings.HasPrefix(name, envPrefix) || slices.Contains(otherVariables, name) || serviceLink.MatchString(name) {
			continue
		}
		s, ok := byName[name]
		if !ok {
			errs = append(errs, fmt.Errorf("environment variable %s: there is no such setting (settmq config environment lists all)", name))
			continue
		}
		set(name, values[name], s)
	}
	return applied, errors.Join(errs...)
}

// Differences lists the paths of the settings in which a and b are not the same.
func Differences(a, b *Config) []string {
	var paths []string
	for _, s := range settings() {
		va, errA := reflect.ValueOf(a).Elem().FieldByIndexErr(s.index) // an error is a group that is not there
		vb, errB := reflect.ValueOf(b).Elem().FieldByIndexErr(s.index)
		if (errA == nil) != (errB == nil) || errA == nil && !reflect.DeepEqual(va.Interface(), vb.Interface()) {
			paths = append(paths, s.path)
		}
	}
	return paths
}

// Ignored lists the variables of RabbitMQ's server in environ that have no effect here.
func Ignored(environ []string) []string {
	var names []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		ours := slices.ContainsFunc(rabbitVariables, func(r struct{ name, path string }) bool { return r.name == name })
		if strings.HasPrefix(name, "RABBITMQ_") && !ours && !serviceLink.MatchString(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// field is the settable field at index; groups that are not there yet are made on the way.
func (c *Config) field(index []int) reflect.Value {
	v := reflect.ValueOf(c).Elem()
	for _, i := range index {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		v = v.Field(i)
	}
	return v
}

// setField reads text as the field's type. Lists take YAML in brackets, or their members with commas between.
func setField(field reflect.Value, text string) error {
	to := field.Addr().Interface()
	if u, ok := to.(yaml.Unmarshaler); ok {
		return envError(u.UnmarshalYAML(&yaml.Node{Kind: yaml.ScalarNode, Value: text}))
	}
	switch to := to.(type) {
	case *string:
		*to = text
	case *bool:
		v, err := strconv.ParseBool(text)
		if err != nil {
			return errors.New("true or false is needed here")
		}
		*to = v
	case *[]string:
		if strings.HasPrefix(text, "[") {
			return decodeStrict(text, to)
		}
		*to = members(text)
	case *[]Listener:
		if strings.HasPrefix(text, "[") {
			return decodeStrict(text, to)
		}
		*to = nil
		for _, address := range members(text) {
			*to = append(*to, Listener{Address: address})
		}
	default:
		return decodeStrict(text, to)
	}
	return nil
}

// members splits a list at its commas. An empty text is an empty list.
func members(text string) []string {
	list := []string{}
	for m := range strings.SplitSeq(text, ",") {
		if m = strings.TrimSpace(m); m != "" {
			list = append(list, m)
		}
	}
	return list
}

func decodeStrict(text string, to any) error {
	d := yaml.NewDecoder(bytes.NewReader([]byte(text)))
	d.KnownFields(true)
	if err := d.Decode(to); err != nil {
		return envError(tidy(err))
	}
	return nil
}

// envError drops the line, which says nothing here.
func envError(err error) error {
	if err == nil {
		return nil
	}
	text := tidy(err).Error()
	if at, rest, ok := strings.Cut(text, ": "); ok && strings.HasPrefix(at, "line ") {
		text = rest
	}
	return errors.New(text)
}
