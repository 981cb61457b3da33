package importfirecrest

import "time"

// transfers is the way of uploads and downloads by jobs: S3 for all systems, or none.
func (c *conversion) transfers(data *section) {
	in := data.section("data_transfer")
	if !data.has("data_transfer") {
		return
	}
	switch kind := in.text("service_type"); kind {
	case "s3":
		c.storage(in)
	case "streamer":
		data.note("data_transfer", "%q goes through this service, and its clients need an address for that: see firecrest.streamer", kind)
	default:
		data.note("data_transfer", "%q has no counterpart: uploads and downloads by jobs go through S3, see firecrest.s3", kind)
	}
}

// storage takes the S3 of the first cluster that has one.
func (c *conversion) storage(in *section) {
	if c.s3.text.Len() > 0 {
		in.note("", "one storage serves all systems: the first one was taken")
		return
	}
	w := &c.s3
	w.table("[firecrest.s3]")
	w.set("public_url", in.url("public_url"))
	w.set("private_url", in.url("private_url"))
	w.set("region", in.text("region"))
	w.set("bucket", "transfers")
	w.set("access_key_id", "to-be-set")
	in.note("access_key_id", "is a secret of FirecREST's and was not copied: set firecrest.s3.access_key_id")
	in.taken["access_key_id"] = true
	w.set("secret_key_file", in.secret("secret_access_key", "s3.secret"))
	w.set("url_lifetime", time.Duration(in.number("ttl", 60, 7*24*3600))*time.Second)
	parts := in.section("multipart")
	w.set("max_part_size", parts.number("max_part_size", 5<<20, 5<<30))
	parts.drop("use_split", "parts are sent from the file as it stands")
	parts.drop("parallel_runs", "parts are sent one after the other")
	parts.drop("tmp_folder", "nothing is split")
	parts.rest()
	in.drop("name", "it needs none")
	in.drop("tenant", "it is part of the URL, or of the key")
	in.drop("probing", "the storage is seen by its use")
	in.drop("max_ops_file_size", "see firecrest.max_ops_file_size")
	in.drop("bucket_lifecycle_configuration", "give the bucket a lifecycle rule in the storage itself")
	in.note("", "FirecREST makes a bucket for each user; here one bucket is for all, and has to exist: see firecrest.s3.bucket")
	in.rest()
}
