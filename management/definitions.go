package management

import (
	"errors"
	"io"
	"mime"
	"net/http"

	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/broker/definitions"
)

func getDefinitions(r *request) (any, error) { return r.writeDefinitions(r.broker.Export(), "") }

func getVHostDefinitions(r *request) (any, error) {
	if r.vhost == nil {
		return nil, badRequest("vhost_not_found")
	}
	return r.writeDefinitions(r.vhost.Export(), r.vhost.Name())
}

func (r *request) writeDefinitions(d *definitions.Definitions, vhost string) (any, error) {
	if d.Cluster == "" {
		d.Cluster = r.broker.Node()
	}
	name := r.query.Get("download")
	return &raw{func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		if name != "" {
			w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
		}
		if r.Method == http.MethodHead {
			return
		}
		if err := definitions.Write(w, d, vhost); err != nil {
			r.server.log.Debug().Err(err).Msg("definitions were not sent to their end")
		}
	}}, nil
}

func postDefinitions(r *request) (any, error) { return r.importDefinitions("") }

func postVHostDefinitions(r *request) (any, error) { return r.importDefinitions(r.vhost.Name()) }

// importDefinitions takes all of a file over or, with an error that says why, nothing.
func (r *request) importDefinitions(vhost string) (any, error) {
	file, err := r.definitionsFile()
	if err != nil {
		return nil, err
	}
	d, err := definitions.Parse(file, definitions.Options{VHost: vhost})
	var wrong *definitions.Error
	switch {
	case errors.As(err, &wrong):
		return nil, badRequest(wrong.Error())
	case errors.Is(err, definitions.ErrTooLarge):
		return nil, badRequest("Exceeded HTTP request body size limit")
	case err != nil:
		return nil, &apiError{status: http.StatusRequestTimeout}
	}
	if vhost != "" {
		// Such a file may say of its vhost what it is, but only an upload of everything says so of the broker.
		if err := onlyFor(d, vhost); err != nil {
			return nil, err
		}
	}
	if _, err := r.broker.Merge(d); err != nil {
		var refused *broker.ImportError
		if errors.As(err, &refused) {
			return nil, badRequest(refused.Error())
		}
		return nil, err
	}
	return noContent, nil
}

// onlyFor refuses definitions that are about anything but one vhost.
func onlyFor(d *definitions.Definitions, vhost string) error {
	if len(d.Users)+len(d.Permissions)+len(d.TopicPermissions)+len(d.GlobalParameters) > 0 {
		return badRequest("definitions of a virtual host have neither users nor permissions nor global parameters")
	}
	for _, v := range d.VHosts {
		if v.Name != vhost {
			return badRequest("definitions of another virtual host")
		}
	}
	return nil
}

// definitionsFile is the body, or the file in a form.
func (r *request) definitionsFile() (io.Reader, error) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != "multipart/form-data" {
		return r.Body, nil
	}
	form, err := r.MultipartReader()
	if err != nil {
		return nil, badRequest(err.Error())
	}
	for parts := 0; parts < 16; parts++ {
		part, err := form.NextPart()
		if err != nil {
			break
		}
		if part.FormName() == "file" {
			return part, nil
		}
	}
	return nil, badRequest("the form has no file")
}
