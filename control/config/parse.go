package config

import "github.com/goccy/go-yaml"

// Parse decodes data; name is what errors call the file.
func Parse(name string, data []byte) (*Config, error) {
	c := &Config{}
	return c, yaml.Unmarshal(data, c)
}
