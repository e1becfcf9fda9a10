from sslrepro.cli import main

raise SystemExit(main())
