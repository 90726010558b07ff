from benchmarks.neural_processes.run import main

main()
