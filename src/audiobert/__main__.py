from audiobert.cli import main

main()
