# Thin aliases of ./run, for fingers that type make. Arguments: make test ARGS="-k embedded"
demo test check bench:
	@./run $@ $(ARGS)
.PHONY: demo test check bench
