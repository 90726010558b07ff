from benchmarks.tuning.run import main

main()
