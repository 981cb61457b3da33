package main

import (
	"bytes"
	"fmt"

	"sallyport/httpapi/firecrest/s3"
	"sallyport/internal/private"
)

// openStaging makes the storage for transfers; nil if the file has none.
func openStaging(s S3Section) (*s3.Storage, error) {
	if s.PublicURL == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	secret, err := private.ReadFile(s.SecretKeyFile, maxServiceToken)
	if err != nil {
		return nil, fmt.Errorf("firecrest.s3.secret_key_file: %w", err)
	}
	storage, err := s3.New(s3.Config{
		PublicURL: s.PublicURL, PrivateURL: s.PrivateURL, Region: s.Region, Bucket: s.Bucket, AccessKeyID: s.AccessKeyID,
		SecretAccessKey: string(bytes.TrimSpace(secret)), PartSize: s.MaxPartSize, Lifetime: s.URLLifetime,
	})
	if err != nil {
		return nil, fmt.Errorf("firecrest: %w", err)
	}
	return storage, nil
}

// checkStaging reads the secret and checks the rest; nothing is sent.
func checkStaging(f File) error {
	storage, err := openStaging(f.FirecREST.S3)
	if storage == nil {
		return err
	}
	return storage.Close()
}
