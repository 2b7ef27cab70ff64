package management

// whoami says who asks.
func whoami(r *request) (any, error) {
	tags := []string{"administrator"}
	if r.user != nil {
		tags = r.user.Tags
	}
	return object{{"name", r.userName()}, {"tags", tags}, {"is_internal_user", true}}, nil
}
