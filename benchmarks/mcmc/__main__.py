from benchmarks.mcmc.run import main

main()
