"""S3PRL's run_downstream, which knows its own upstreams only, with ours among them: same options, `-u sslrepro_local -k RUN`."""

from s3prl import hub, run_downstream

from sslrepro.interop.s3prl.hubconf import sslrepro_local

hub.sslrepro_local = sslrepro_local
run_downstream.main()
