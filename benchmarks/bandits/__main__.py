from benchmarks.bandits.run import main

main()
