debian ruby-bunny || return
version=$(debian_version ruby-bunny)
program bunny "$version" scenarios ruby scenarios.rb
program bunny "$version" extensions ruby extensions.rb
