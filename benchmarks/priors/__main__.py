from benchmarks.priors.run import main

main()
